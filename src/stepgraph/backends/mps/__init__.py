"""Apple GPUs: graphs built, compiled and run by Metal Performance Shaders Graph."""
