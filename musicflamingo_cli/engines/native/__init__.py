"""Engine `native`: llama.cpp's libraries in a worker process."""
