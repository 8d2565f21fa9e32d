"""Native kernels beyond products: fused loops, pooling, softmax, random numbers."""
