class Preprocessor:
    """Named almost like the class that is looked for."""
