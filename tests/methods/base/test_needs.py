"""What methods declare to need is what they read."""

from __future__ import annotations

from unittest import mock

from helpers.method_cases import build, every_method, images_with


@every_method
def test_a_method_declares_whether_it_reads_the_ground_truth(name, variant):
    model, read = build(name, variant), set()
    method = getattr(model.kd.feature, "method", model.kd.feature)  # or the one inside
    forward = type(method).forward

    class Watched:
        def __init__(self, step):
            self.step = step

        def __getattr__(self, attribute):
            read.add(attribute)
            return getattr(self.step, attribute)

    def watched(self, student, teacher, step):
        return forward(self, student, teacher, Watched(step))

    with mock.patch.object(type(method), "forward", watched):
        model(images_with([[4, 4, 40, 50]]))
    reads = bool(read & {"targets", "ground_truth", "assign"})
    assert reads == method.needs.ground_truth == model.kd.feature.needs.ground_truth
