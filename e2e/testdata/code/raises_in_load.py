class Preprocess:
    def load(self, local_file_name):
        raise OSError("the tokenizer could not be opened")
