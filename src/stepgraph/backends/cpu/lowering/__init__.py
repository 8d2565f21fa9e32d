"""From operations to launches: fused loops here, one file per op family beside it."""
