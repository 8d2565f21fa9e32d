"""Native kernels of the CPU engine: emitted as LLVM IR, cached as objects, run by one thread pool.

From the bottom up:

- `target`: the processor that code is generated for (this one, or any other by name);
- `compile`: IR to machine code, the on-disk cache, loading;
- `emit`: the small language kernels are written in; `vector_math`: exp, log, tanh, ... in it;
- `pool`: threads, and programs of kernel launches that they run;
- `product`, `layout`, `convolution`, `weight_gradient`, `matmul`: the kernels that do most of a
  training step's arithmetic.

Nothing here knows graphs or operations; llvmlite is loaded by the first module that emits code.
"""
