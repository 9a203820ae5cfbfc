"""Adam as torch has it, without torch's compiler.

An optimizer of torch imports the compiler when it is made and when it steps, only to say that it is
not to be compiled. That takes a second or two and 80 MB of a process that compiles nothing, which
is as long as the descent that explains a clip. What is computed is torch's own code, to the bit.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import Optimizer


class _Uncompiled(Optimizer):
    """Methods of any optimizer, without what torch wraps around them."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class Adam(_Uncompiled, torch.optim.Adam):
    """`torch.optim.Adam`: Kingma, Ba 2015, arXiv 1412.6980."""

    step: Any = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class AdamW(_Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW`: Loshchilov, Hutter 2019, arXiv 1711.05101."""

    step: Any = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
