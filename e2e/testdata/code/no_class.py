class Preprocessor:
    """Named almost like the required class."""
