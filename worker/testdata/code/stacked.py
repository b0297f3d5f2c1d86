"""Answers many requests together; says how many there were. Some questions do harm."""

import os
import time


class Preprocess:
    def preprocess(self, body, state, collect):
        if "for" in body:  # a gate
            body = {"x": "gate", **body}
        do = body.get("do")
        while do == "stay" and not os.path.exists(body["for"]):
            time.sleep(0.001)
        if do == "refuse":
            raise ValueError("refused " + str(body["x"]))
        if do == "call":
            state["called"] = self.send_request(body["to"], data=body["data"])
        if do == "die-early":
            os._exit(7)
        if collect is not None:
            collect({"seen": body["x"]})
        return body

    def process_batch(self, data, state, collect):
        for one in data:
            if one.get("do") == "wait":  # until the test makes the file
                while not os.path.exists(one["for"]):
                    time.sleep(0.001)
            if one.get("do") == "spoil":
                raise RuntimeError("spoilt by " + str(one["x"]))
            if one.get("do") == "die":
                os._exit(7)
            if one.get("do") == "short":
                return []
        return [
            KeyError("no " + str(one["x"]))
            if one.get("do") == "fail"
            else {"x": one["x"], "of": len(data), "called": s.get("called")}
            for one, s in zip(data, state)
        ]

    def postprocess(self, data, state, collect):
        if data["x"] == "stream":
            return (f"{i}\n" for i in range(40))
        if data["x"] == "slow":
            time.sleep(0.02)
        if data["x"] == "large":
            data["body"] = "z" * (300 << 10)
        return data
