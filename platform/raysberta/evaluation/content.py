"""What a model is, whatever it is called: a hash of all that decides its vectors."""

import hashlib
import json
from pathlib import Path

from raysberta.models.describe import describe
from raysberta.models.folder import part_folders
from raysberta.models.load import hash_tensors


def content_of(folder: Path) -> str:
    """A hash of what decides a model's vectors: tensors, tokenizer, and what the folder says of its use; 64 hexadecimal digits.

    How the tensors are shared out among files, and what else the files hold, does not count. Memory: one tensor.
    """
    said = describe(folder)
    used = [said.pooling, said.prefixes.model_dump(exclude_none=True), said.max_tokens]
    digest = hashlib.sha256(json.dumps(used if said.include_prompt else [*used, "without prefix"]).encode())
    for file in (folder / "tokenizer.json", *(place / "config.json" for place in part_folders(folder))):
        digest.update(file.read_bytes())
    hash_tensors(digest, folder)
    return digest.hexdigest()
