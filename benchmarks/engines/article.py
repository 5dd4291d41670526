"""The first article's PyTorch code as written: its detection loop and its training loop."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.engines.common import BaselineEngine, Pixels
from benchmarks.engines.pytorch import load_network, torch_facts
from benchmarks.measure.cases import Job
from edge_runtime.model.contract import IMAGENET_MEAN, IMAGENET_SCALE
from edge_runtime.pixels.preprocess import face_pixels


class ArticleEngine(BaselineEngine):
    """The article's detection loop: one picture at a time, softmax, FPS = 1 / time, torch's default threads.

    Only the pixels are this project's, so that its logits can be compared with FP32's.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job, lambda pixels: self._output(pixels).numpy(), torch_facts())
        self._model = load_network(job)
        self._mean = torch.tensor(self.contract.mean).view(3, 1, 1)
        self._scale = torch.tensor(self.contract.scale).view(3, 1, 1)
        self._article_fps: list[float] = []

    def facts(self) -> dict[str, Any]:
        """Return what runs, and the mean of 1 / time over all pictures, the cold first ones included."""
        return {**super().facts(), "fps_as_the_article_counts": round(float(np.mean(self._article_fps or [0.0])), 2)}

    def _judge(self, paths: Sequence[str]) -> object:
        start = time.time()
        image = Image.open(paths[0]).convert("RGB")
        output = self._output(face_pixels(image, None, self.contract))
        predicted = int(torch.softmax(output, dim=1).mean(dim=0).argmax())
        self._article_fps.append(1.0 / (time.time() - start))
        return predicted

    def _output(self, pixels: Pixels) -> Any:
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0
        with torch.no_grad():
            return self._model((tensor - self._mean) / self._scale)


class ArticleDataset(torch.utils.data.Dataset[Any]):
    """The article's dataset: path and label (0 real, 1 fake) of each face, opened and resized to 224 when asked for."""

    def __init__(self, faces: Sequence[tuple[str, int]]) -> None:
        from torchvision import transforms

        self._faces = faces
        self._transform = transforms.Compose(
            [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_SCALE)]
        )

    def __len__(self) -> int:
        return len(self._faces)

    def __getitem__(self, index: int) -> Any:
        path, label = self._faces[index]
        return self._transform(Image.open(path).convert("RGB")), label


def article_training(model: Any, faces: Sequence[tuple[str, int]], batch_size: int) -> Iterator[float]:
    """Train `model` in place as the article does; yield the mean loss of each epoch, without end.

    Adam at 1e-3, float32, one process, torch's default threads. `faces` are paths with labels (0 real, 1 fake).
    """
    loader = torch.utils.data.DataLoader(ArticleDataset(faces), batch_size=batch_size, shuffle=True)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    model.train()
    while True:
        running_loss = 0.0
        for inputs, labels in loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        yield running_loss / len(loader)
