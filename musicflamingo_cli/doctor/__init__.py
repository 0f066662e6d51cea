"""What is installed, what is missing, and proof that the model hears."""
