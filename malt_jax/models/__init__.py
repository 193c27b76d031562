"""Language models: `load` reads one from disk, `llama` computes with it, `lora` adapts it."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from malt_jax.config.places import shipped
from malt_jax.models import gguf, hf, llama, lora
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Adapter, Params
from malt_jax.models.weights import Placement, build
from malt_jax.runtime import hosts
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.workdir.storage import check_regular

__all__ = ["Adapter", "LlamaConfig", "Model", "Params", "llama", "load", "lora"]

_LLAMA = re.compile(r"meta-llama/(?:Meta-)?Llama-3\.1-(8B|70B)(?:-Instruct)?")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A language model. `params` is the tree `llama.param_shapes(config)` describes."""

    config: LlamaConfig
    params: Params
    source: str
    files: tuple[Path, ...]
    read_tokenizer: Callable[[], Tokenizer]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Read at first use. Raises ValueError if it is missing or has ids the model lacks."""
        tokenizer = self.read_tokenizer()
        if tokenizer.vocab_size > self.config.vocab_size:
            raise ValueError(
                f"{self.source}: the tokenizer has {tokenizer.vocab_size} ids, the model's"
                f" vocabulary {self.config.vocab_size}"
            )
        return tokenizer

    @cached_property
    def content_hash(self) -> str:
        """`sha256:` and the digest of the weight files' bytes, in the order of their names.

        Of several hosts the first reads them, and the others take its word, so that all must ask at
        the same time. Raises ValueError if their files are not as long as its.
        """
        sizes = [(file.name, file.stat().st_size) for file in self.files]
        if not hosts.same(repr(sizes).encode()):
            raise ValueError(
                f"{self.source}: the hosts have different files of it; give all the same base"
            )
        return hosts.from_first(lambda: _digest(self.files))

    def logits(self, tokens: ArrayLike, mask: ArrayLike | None = None) -> Array:
        """Next-token logits float32[B, T, V] for int32[B, T] tokens.

        `mask` bool[B, T] is true on real tokens (padding on either side); without it all are real.
        Raises ValueError for tokens of another shape or outside the vocabulary, and for a row
        beyond the model's sliding window if it has one.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"tokens: expected int32[B, T], got {tokens.dtype}{list(tokens.shape)}"
            )
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.config.vocab_size:
            raise ValueError(f"tokens: ids must lie in [0, {self.config.vocab_size})")
        real = np.ones(tokens.shape, bool) if mask is None else np.asarray(mask, bool)
        if real.shape != tokens.shape:
            raise ValueError(f"mask: shape {real.shape} differs from tokens' {tokens.shape}")
        if self.config.window and real.sum(-1).max(initial=0) > self.config.context:
            raise ValueError(
                f"tokens: a row is longer than the sliding window of {self.config.context}, inside "
                "which alone this port's full attention is the model's"
            )
        return _logits(self.config, self.params, tokens.astype(np.int32), real)


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


@partial(jax.jit, static_argnums=0)
def _logits(config: LlamaConfig, params: Params, tokens: Array, mask: Array) -> Array:
    return llama.unembed(config, params, llama.forward(config, params, tokens, mask)[0])


def load(
    path: str | Path, dtype: Any = jnp.float32, *, placement: Placement | None = None
) -> Model:
    """Reads a model from a Hugging Face directory, a GGUF file (or its directory), or a hub id.

    `placement(tree_path, shape)` says which devices hold which part of a parameter; of safetensors
    a host reads no more than its devices hold. The default is JAX's default device. Host memory
    stays near the largest tensor plus what is placed there.
    Raises ValueError naming the file and the tensor or field for pickled weights, code that comes
    with weights, and whatever the config and the files disagree on.
    """
    where = _resolved(path)
    if not where.is_dir():
        check_regular(where)
        if where.suffix == ".gguf":
            return _from_gguf(where, dtype, placement)
        raise ValueError(
            f"{where}: expected a directory or a .gguf file; give the directory that holds"
            " safetensors, and convert pickled weights (.bin, .pt) to safetensors first"
        )
    if not (where / "config.json").exists():
        files = sorted(where.glob("*.gguf"))
        if len(files) == 1:
            return _from_gguf(files[0], dtype, placement)
        names = ", ".join(file.name for file in files) or "no .gguf file"
        raise ValueError(
            f"{where}: has no config.json and {names}; expected a Hugging Face directory or one"
            " .gguf file"
        )
    config, stored = hf.config(where), hf.tensors(where)
    params = build(config, stored, dtype, placement)
    sources = tuple(sorted({tensor.file for tensor in stored.values()}))
    return Model(config, params, str(path), sources, lambda: Tokenizer.from_directory(where))


def read_config(path: str | Path) -> LlamaConfig:
    """The shape of a model without its weights: of a directory that holds a `config.json`, of a
    GGUF file, or of a hub id, from which that file alone is fetched. Those of Llama 3.1 8B and 70B
    come with the package.

    Raises ValueError as `load` does.
    """
    if not Path(path).exists() and (llama_3 := _LLAMA.fullmatch(str(path))):
        return hf.config(shipped("third_party") / f"llama-3.1-{llama_3[1].lower()}")
    if not Path(path).exists() and _HUB_ID.fullmatch(str(path)):
        return hf.config(_fetched(str(path), ["config.json"]))
    where = _resolved(path)
    files = [where] if not where.is_dir() else sorted(where.glob("*.gguf"))
    if files and not (where / "config.json").exists():
        return gguf.config(gguf.open_file(files[0]))
    return hf.config(where)


def _from_gguf(file: Path, dtype: Any, placement: Placement | None) -> Model:
    reader = gguf.open_file(file)
    config = gguf.config(reader)
    params = build(config, gguf.tensors(reader), dtype, placement)
    return Model(config, params, str(file), (file,), lambda: gguf.tokenizer(reader))


def _resolved(path: str | Path) -> Path:
    """A local path, downloading a hub id first."""
    local = Path(path)
    if local.exists():
        return local
    if isinstance(path, Path) or not _HUB_ID.fullmatch(path):
        raise ValueError(f"{path}: no such file or directory")
    return _fetched(path, _HUB_FILES)


def _fetched(name: str, files: list[str]) -> Path:
    """A directory with those files of a hub id."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=files, ignore_patterns=["original/*"]))
    except Exception as error:  # the hub client raises errors of several libraries
        raise ValueError(
            f"{name}: no such directory, and it could not be downloaded from the hub ({error});"
            " check the name and the network, or give a local path; a gated model needs its licence"
            f" accepted at https://huggingface.co/{name}, and HF_TOKEN"
        ) from error
