"""Native kernels of the CPU engine: emitted as LLVM IR, cached as objects, run by one thread pool.

From the bottom up:

- `target`: the processor that code is generated for (this one, or any other by name);
- `compile`, `cache`: IR to machine code, kept on disk; loading;
- `value`, `emit`: the small language kernels are written in; `vector_math`: exp, log, tanh, ...;
- `executor_ir`, `pool`: threads, and programs of kernel launches that they run;
- `product`: the register-blocked product behind all that follows;
- `geometry`, `convolution`, `data_gradient`, `weight_gradient`, `matmul`, `layout`: its users;
- `kernels`: all of those in one compiled module.

Nothing here knows graphs or operations; llvmlite is loaded by the first module that emits code.
"""
