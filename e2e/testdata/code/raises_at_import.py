raise RuntimeError("the licence file is missing")


class Preprocess:
    pass
