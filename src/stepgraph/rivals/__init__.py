"""What `stepgraph bench --against` measures itself by: other libraries, none of them a dependency.

- `turns`: programs that take turns on one machine, and what their times were;
- `speed`: the table: networks, batch sizes, stepgraph and a rival side by side;
- `pytorch`: PyTorch's training steps and predictions; `twins`: its networks.

`pytorch` and `twins` import PyTorch and are imported only where it is asked for.
"""
