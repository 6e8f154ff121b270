"""`imagemill push`: an output as a dataset repository of the Hugging Face hub."""
