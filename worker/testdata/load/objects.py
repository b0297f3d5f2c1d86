# shared
import dataclasses
import re


@dataclasses.dataclass
class Step:
    factor: int
    after: "list[Step]" = dataclasses.field(default_factory=list)

    def run(self, n):
        return self.after[0].run(n) if self.after else self.factor * n + 3


class Preprocess:
    def load(self, path):
        self.steps = Step(1, [Step(7)])
        self.steps.after[0].loop = self
        self.pattern = re.compile(r"(\d+)")

    def process(self, data, state, collect):
        return {"y": self.steps.run(int(self.pattern.match(str(data["n"])).group(1)))}
