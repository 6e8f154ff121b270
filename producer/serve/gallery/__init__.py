"""An output as pictures in the browser: pages, one picture, what to copy of it, sweeps."""
