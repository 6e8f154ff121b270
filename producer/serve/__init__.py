"""`imagemill serve`: pages of jobs, workers and pictures for a browser. They only read."""
