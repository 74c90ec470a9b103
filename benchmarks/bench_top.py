"""What is lost where only a teacher's k largest probabilities of 10,000 classes are kept: no time, but loss.

A row is the mean difference of the loss, over the loss, of a student that agrees with the teacher in part; and one
minus the cosine between the gradients. Teachers of noise, one of many classes of weight and one of few.
"""

from __future__ import annotations

import torch

from robustdistill.losses import margin_loss
from robustdistill.training.views import Dense, Top

CLASSES, BATCH = 10_000, 64


def against(kept: torch.Tensor, teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> list[float]:
    """Relative difference of the losses and one minus the cosine of their gradients."""
    losses, gradients = [], []
    for logits in (kept, teacher):
        f = student.clone().requires_grad_()
        loss = margin_loss(f, torch.softmax(logits / temperature, dim=1), torch.ones(CLASSES))
        loss.sum().backward()
        losses.append(loss.detach())
        gradients.append(f.grad)
    cosine = torch.cosine_similarity(*gradients, dim=1).mean()
    return [float(((losses[0] - losses[1]) / losses[1]).abs().mean()), 1 - float(cosine)]


for sharpness in (2.0, 4.0):
    for temperature in (1.0, 3.0):
        torch.manual_seed(0)
        teacher = sharpness * torch.randn(BATCH, CLASSES)
        student = 0.7 * teacher + torch.randn(BATCH, CLASSES)
        many = float(torch.distributions.Categorical(logits=teacher).entropy().exp().median())
        for name, codec in (
            ("all", Dense(CLASSES)), ("10", Top(CLASSES, 10)), ("100", Top(CLASSES, 100)), ("1,000", Top(CLASSES, 1000))
        ):  # fmt: skip
            lost, turned = against(codec.decode(codec.encode(teacher)), teacher, student, temperature)
            what = f"{name} of 10,000 classes ({2 * codec.width:,} bytes), T = {temperature:g}, perplexity {many:.0f}"
            print(f"| {what} | float32 of all | loss {lost:.1e} | 1 − cosine of gradients {turned:.1e} | - | - |")
