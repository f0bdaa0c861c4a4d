"""A small classifier of .tok files, a folder for each class: `python examples/classify_tokens.py FOLDER`."""

import sys

import torch

from tokcodec.tokenset import TokenDataset

data = TokenDataset(sys.argv[1], steps=3)
items = list(data)  # indices, kept, ...; no pixels are decoded
classes = sorted({item["path"].split("/")[0] for item in items})
bits = torch.arange(data.bits_per_token)
histogram = torch.stack([((i["indices"][..., None] >> bits) & 1).float().mean((0, 1, 2)) for i in items])
changes = torch.stack([(i["indices"][1:] != i["indices"][:-1]).float().mean()[None] for i in items])
features = torch.cat([histogram, changes], dim=1)
features = (features - features.mean(0)) / (features.std(0) + 1e-6)
labels = torch.tensor([classes.index(item["path"].split("/")[0]) for item in items])
model = torch.nn.Sequential(torch.nn.Linear(len(bits) + 1, 32), torch.nn.ReLU(), torch.nn.Linear(32, len(classes)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for _ in range(200):
    loss = torch.nn.functional.cross_entropy(model(features), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
right = (model(features).argmax(1) == labels).float().mean()
print(f"{len(data)} pieces, {len(classes)} classes, {right:.0%} of them learned")
