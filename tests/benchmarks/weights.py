"""One set of weights in every engine's format, derived once from a quantised GGUF file.

All but Q8_0 hold the same float32 values: the file's tensors, dequantised.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from conftest import SMOLLM2_FILE
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize

from malt_jax import models
from malt_jax.models import hf

CACHE = Path.home() / ".cache" / "malt_jax"
_DERIVED = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")
_QUANTISED = ("general.file_type", "general.quantization_version")


@dataclass(frozen=True)
class Weights:
    """Paths of the same model: a Hugging Face directory in float32, and GGUF files."""

    directory: Path
    f32: Path
    q8_0: Path


def default_model() -> Path:
    """The file the tests read."""
    named = os.environ.get("MALT_SMOLLM2_GGUF")
    return Path(named) if named else CACHE / SMOLLM2_FILE


def derive(source: Path, folder: Path) -> Weights:
    """Writes what `folder` does not hold yet, whole or not at all. Raises ValueError if `source` is
    no GGUF file of the Llama architecture."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = Weights(folder / "hf", folder / "f32.gguf", folder / "q8_0.gguf")
    if not weights.directory.exists():
        model = models.load(source)
        partial = folder / "hf.partial"
        shutil.rmtree(partial, ignore_errors=True)
        hf.save(partial, model.config, model.params)
        model.tokenizer.save(partial)
        partial.rename(weights.directory)
    for file, kind in (
        (weights.f32, LlamaFileType.ALL_F32),
        (weights.q8_0, LlamaFileType.MOSTLY_Q8_0),
    ):
        if not file.exists():
            partial = file.with_suffix(".partial")
            _write_gguf(source, partial, kind)
            partial.rename(file)
    return weights


def _write_gguf(source: Path, target: Path, kind: LlamaFileType) -> None:
    reader = GGUFReader(source)
    writer = GGUFWriter(target, "llama")
    for name, entry in reader.fields.items():
        if name not in _DERIVED + _QUANTISED:
            main = entry.types[0]
            inner = entry.types[-1] if main is GGUFValueType.ARRAY else None
            writer.add_key_value(name, entry.contents(), main, inner)
    writer.add_file_type(kind)
    writer.add_quantization_version(2)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if kind is LlamaFileType.MOSTLY_Q8_0 and values.ndim > 1:
            eight = GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor.name, quantize(values, eight), raw_dtype=eight)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
