"""Samples images with diffusers' models: the denoiser, compiled schedulers, texts and precision."""
