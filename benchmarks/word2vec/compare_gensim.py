#!/usr/bin/env python3
"""Sets examples/train_word2vec beside gensim's Word2Vec (PyPI) at the same settings, one after the other.

    benchmarks/word2vec/compare_gensim.py build/examples-release/examples/train_word2vec [--text FILE]

Both read the same words: the text, cut into words as the example cuts it, a sentence per line. Words per second are those of
the whole text, times epochs, without the time to read it; the best of some rounds, in which both take turns. Also printed: each one's neighbours, and how many of the ten nearest
of the 200 most frequent words they have in common, with what two seeds of gensim have in common for comparison.
"""
import argparse
import pathlib
import re
import subprocess
import tempfile
import time

import gensim
from gensim.models import KeyedVectors, Word2Vec

SHOWN = ["king", "david", "jerusalem", "water", "father", "sword"]


def words_of(line):
    """As detail::for_each_word in examples/train_word2vec/corpus.hpp."""
    words = re.findall(r"[^\W_][^\W_']*(?:'+[^\W_']+)*(?::\d+)*", line.lower())
    return [word for word in words if not re.search(r"[\d:]", word)]


def overlap(a, b, words):
    common = [len({w for w, _ in a.most_similar(word, topn=10)} & {w for w, _ in b.most_similar(word, topn=10)})
              for word in words]
    return sum(common) / (10 * len(words))


def train_gensim(text, options, seed):
    model = Word2Vec(vector_size=100, window=5, negative=5, min_count=5, sample=1e-3, alpha=0.025, min_alpha=1e-4, sg=1,
                     hs=0, workers=options.threads, seed=seed)
    model.build_vocab(corpus_file=str(text))
    begin = time.perf_counter()
    model.train(corpus_file=str(text), total_words=model.corpus_total_words, epochs=options.epochs)
    seconds = time.perf_counter() - begin
    words = sum(model.wv.get_vecattr(word, "count") for word in model.wv.index_to_key) * options.epochs
    return model.wv, words / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path, help="default: the King James Bible (Debian package bible-kjv)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=2, help="2 at least, for the two seeds")
    options = parser.parse_args()
    options.rounds = max(options.rounds, 2)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = options.text.read_text() if options.text else subprocess.run(
            ["bible", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True).stdout
        sentences = folder / "sentences.txt"
        sentences.write_text("".join(" ".join(words) + "\n" for line in text.splitlines() if (words := words_of(line))))

        vectors = folder / "vectors.txt"
        our_speed, their_speed, their_runs = 0, 0, []
        for turn in range(options.rounds):
            ours = subprocess.run([options.program, "--text", sentences, "--devices", str(options.threads), "--epochs",
                                   str(options.epochs), "--quiet", "--save-vectors", vectors, "--words", "the"],
                                  capture_output=True, text=True, check=True).stdout
            our_speed = max(our_speed, float(re.search(r"(\d+) words/s", ours).group(1)))
            model, speed = train_gensim(sentences, options, turn)
            their_speed = max(their_speed, speed)
            their_runs.append(model)
        our_vectors, their_vectors, other_vectors = KeyedVectors.load_word2vec_format(vectors), their_runs[0], their_runs[-1]

        print(f"train_word2vec  {our_speed:12.0f} words/s")
        print(f"gensim {gensim.__version__:8} {their_speed:12.0f} words/s")
        print(f"train_word2vec is {our_speed / their_speed:.2f} times as fast, with {options.threads} threads each")
        print("\n".join(ours.strip().splitlines()[:2]))
        frequent = [word for word in their_vectors.index_to_key[:200] if word in our_vectors]
        print(f"common neighbours: {overlap(our_vectors, their_vectors, frequent):.2f} of train_word2vec and gensim, "
              f"{overlap(other_vectors, their_vectors, frequent):.2f} of gensim with two seeds")
        for word in SHOWN:
            if word in our_vectors and word in their_vectors:
                for name, table in (("train_word2vec", our_vectors), ("gensim", their_vectors)):
                    print(f"{word:10} {name:14} " + ", ".join(w for w, _ in table.most_similar(word, topn=5)))


if __name__ == "__main__":
    main()
