"""What a model is, whatever it is called: a hash of all that decides its vectors."""

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path

import torch

from raysberta.models.describe import describe
from raysberta.models.folder import part_folders
from raysberta.models.load import tensor_readers


def content_of(folder: Path) -> str:
    """A hash of what decides a model's vectors: tensors, tokenizer, and what the folder says of its use; 64 hexadecimal digits.

    How the tensors are shared out among files, and what else the files hold, does not count. Memory: one tensor.
    """
    said = describe(folder)
    used = [said.pooling, said.prefixes.model_dump(exclude_none=True), said.max_tokens]
    digest = hashlib.sha256(json.dumps(used if said.include_prompt else [*used, "without prefix"]).encode())
    for file in (folder / "tokenizer.json", *(place / "config.json" for place in part_folders(folder))):
        digest.update(file.read_bytes())
    with ExitStack() as opened:
        for name, reader in sorted(tensor_readers(folder, opened).items()):
            tensor = reader.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
