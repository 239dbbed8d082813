"""Which saved model is meant, and what is said of one that cannot be used."""

import shutil

import pytest

from stages.core.cli import BadInput
from stages.text.pretrained import loading, pin

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of a model, as far as `pin` looks at them."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def message(model, revision="", section="explain"):
    with pytest.raises(BadInput) as error:
        pin(str(model), revision, section)
    return str(error.value)


# A folder


def test_the_revision_of_a_folder_is_a_hash_of_what_is_in_it(folder):
    # In a shell: for f in *; do printf '%s\0%s\0' $f $(sha256sum $f | cut -c-64); done, and
    # sha256sum of all that.
    expected = "sha256:d9b057277b6324abd60d967c3f9ce31af1055f1d7251cfb60a3f737f444cc172"
    assert pin(str(folder), "", "explain") == (expected, {"local_files_only": True})


def test_a_copy_elsewhere_has_the_same_revision(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert pin(str(copy), "", "explain") == pin(str(folder), "", "explain")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_byte_changed_changes_the_revision(folder, name):
    before = pin(str(folder), "", "explain").revision
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert pin(str(folder), "", "explain").revision != before


def test_a_file_renamed_changes_the_revision(folder):
    before = pin(str(folder), "", "explain").revision
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert pin(str(folder), "", "explain").revision != before


def test_the_book_keeping_of_a_download_does_not_count(folder):
    before = pin(str(folder), "", "explain").revision
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "config.json.metadata").write_text("1732470000")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert pin(str(folder), "", "explain").revision == before


def test_a_folder_has_no_commit(folder):
    assert message(folder, COMMIT) == (
        f"{folder}: explain.revision\n"
        f"  found:    {COMMIT}\n"
        "  expected: nothing, as this is a folder on the disk: its revision is a hash of it\n"
        "  to mend:  leave explain.revision empty, or state a hub id as explain.model"
    )


def test_a_folder_without_a_config(folder):
    (folder / "config.json").unlink()
    assert message(folder, section="embed") == (
        f"{folder}: config.json\n"
        "  found:    no such file\n"
        "  expected: a folder that save_pretrained wrote, or a snapshot of a hub's model\n"
        "  to mend:  state the folder that holds config.json as embed.model"
    )


@pytest.mark.parametrize(
    ("files", "found"),
    [([], "none"), (["pytorch_model.bin", "a.ckpt"], "only a.ckpt, pytorch_model.bin")],
)
def test_weights_that_are_not_safetensors(folder, files, found):
    (folder / "model.safetensors").unlink()
    for name in files:
        (folder / name).write_bytes(b"\x80")
    assert message(folder) == (
        f"{folder}: weights\n"
        f"  found:    {found}\n"
        "  expected: *.safetensors; other files of weights can run code when they are opened\n"
        "  to mend:  take the model's safetensors files, or, if you trust the source, convert it: "
        "load it with from_pretrained and write it with save_pretrained"
    )


# A hub's model


def test_a_commit_pins_a_model_of_a_hub():
    assert pin("lab/model-2.5_B", COMMIT, "explain") == (COMMIT, {"revision": COMMIT})


@pytest.mark.parametrize(
    ("revision", "found"),
    [
        ("", "nothing, and no folder of the model's name"),
        ("main", "'main'"),
        (COMMIT[:7], f"'{COMMIT[:7]}'"),
        (COMMIT + "\n", repr(COMMIT + "\n")),
    ],
)
def test_a_hub_model_without_a_commit(revision, found):
    assert message("lab/model", revision) == (
        "lab/model: explain.revision\n"
        f"  found:    {found}\n"
        "  expected: the full commit of the hub's model, 40 hexadecimal digits: a branch or a tag "
        "can be moved, and the same config would then give something else\n"
        "  to mend:  copy the commit from the model's page (Files, History), or state a folder"
    )


@pytest.mark.parametrize("model", ["/data/model", "./lab/model", "../model", "~/model", "a/b/c"])
def test_what_can_only_be_a_path_is_no_hub_id(model):
    assert message(model, COMMIT) == (
        f"{model}: explain.model\n"
        "  found:    no such folder\n"
        "  expected: a folder with a model, or a hub id (owner/name)\n"
        "  to mend:  correct the path; a relative one starts at the folder where snakemake runs"
    )


# What the library finds


def loading_message(model, error):
    with pytest.raises(BadInput) as caught, loading(str(model), "embed"):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


def test_a_hub_that_cannot_be_reached():
    assert loading_message("lab/model", OSError("We couldn't\nconnect " + "x" * 500)).endswith(
        "  to mend:  check id and commit; without a network, state a folder as embed.model; for a "
        "model with restricted access, log in with `hf auth login`"
    )


def test_a_long_message_is_cut():
    found = loading_message("lab/model", OSError("We couldn't\n connect " + "x" * 500))
    # 400 characters, 20 of which are the words.
    assert f"  found:    We couldn't connect {'x' * 380}\n" in found


def test_a_file_that_is_broken(folder):
    found = loading_message(folder, ValueError("bad header"))
    assert found.startswith(
        f"{folder}: the model\n  found:    bad header\n  expected: a model that"
    )
    assert found.endswith(
        "  to mend:  copy the model's folder again, whole, or choose a model that this version of "
        "transformers knows"
    )


def test_a_package_that_is_absent(folder):
    assert loading_message(folder, ImportError("Package `num2words` is required")).endswith(
        "  to mend:  install the package that is named into the environment of the pipeline"
    )


def test_code_that_is_not_trusted(folder):
    assert loading_message(folder, ValueError("pass `trust_remote_code=True`")).endswith(
        "  to mend:  read the code, and if you trust it, set embed.trust_remote_code: true"
    )


def test_other_errors_pass(folder):
    with pytest.raises(KeyError), loading(str(folder), "embed"):
        raise KeyError("a bug of ours")


def test_nothing_wrong_is_nothing_said(folder):
    with loading(str(folder), "embed"):
        pass
