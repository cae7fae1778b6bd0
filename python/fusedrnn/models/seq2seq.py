"""Many to many: an encoder reads the whole sequence, a decoder writes another one."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import nn, options
from fusedrnn.models.parts import Decoder, Encoder, Model, checked, seeds
from fusedrnn.models.sequences import beam_search, marked
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array, Dtype


class Seq2Seq(Model):
    """Turns a sequence of symbols into another one, with or without attention.

    Both encoder and decoder are recurrent layers; the decoder begins where the encoder ended. With
    attention, each of its steps also mixes the encoder's outputs, by additive scores (Bahdanau et
    al. 2015), and both together make ``tanh(W [mixed, h])``, from which the symbol comes (Luong et
    al. 2015, without input feeding: all steps are computed at once). Without, all that is known of
    the source went through the decoder's first state.

    Parameters
    ----------
    source_vocabulary, target_vocabulary : int
        V of each side; of the target index 0 is the mark of beginning and end.
    attention : bool
    cell : {"rnn", "gru", "lstm"}
    embedding, hidden, layers : int
        Of both sides. The encoder reads both ways, with `hidden` units each.
    dropout : float
        Between layers and before the last linear one, while training.
    dtype : "float32" or "float64"
    seed : int, optional
        Seeds every initial weight, and dropout.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        attention: bool = True,
        cell: str = "gru",
        embedding: int = 32,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(**checked(
            source_vocabulary=source_vocabulary, target_vocabulary=target_vocabulary,
            attention=attention, cell=cell, embedding=embedding, hidden=hidden, layers=layers,
            dropout=dropout, dtype=dtype,
        ))  # fmt: skip
        s = seeds(seed, 6)
        shared: dict[str, Any] = {
            "cell": cell, "embedding": embedding, "hidden": hidden, "layers": layers,
            "dropout": dropout, "dtype": dtype,
        }  # fmt: skip
        self.encoder = Encoder(
            vocabulary=source_vocabulary, bidirectional=True, seed=s[0], **shared
        )
        width = self.encoder.output_size
        self.decoder = Decoder(width, target_vocabulary, seed=s[1], **shared)
        self.attention: Any = None
        if attention:
            self.attention = nn.Attention(hidden, width, score="additive", dtype=dtype, seed=s[2])
            self.join = nn.Linear(width + hidden, hidden, dtype=dtype, seed=s[3])
        self.drop = nn.Dropout(dropout, seed=s[5])
        self.out = nn.Linear(hidden, target_vocabulary, dtype=dtype, seed=s[4])

    def loss(
        self, sources: Any, targets: Any, source_lengths: Any = None, target_lengths: Any = None
    ) -> float:
        """Return the mean cross-entropy of each symbol of the targets, and of their ends.

        Parameters
        ----------
        sources : array of int [S, B]
        targets : array of int [T, B]
            Without marks.
        source_lengths, target_lengths : integers [B], optional
        """
        sources, source_lengths = self._sources(sources, source_lengths, "source_lengths")
        read, wanted, ends = self._marked(sources, targets, target_lengths)
        memory, last = self.encoder(sources, source_lengths)
        h = self.decoder(read, last)
        if self.attention is not None:
            mixed = self.attention(h, memory, source_lengths)
            h = np.tanh(self.join(np.concatenate([mixed, h], axis=-1)))
        return nn.cross_entropy(self.out(h), wanted, lengths=ends)

    def loss_and_gradients(
        self, sources: Any, targets: Any, source_lengths: Any = None, target_lengths: Any = None
    ) -> tuple[float, dict[str, Array]]:
        """Return the loss, and its gradients by parameter."""
        sources, source_lengths = self._sources(sources, source_lengths, "source_lengths")
        read, wanted, ends = self._marked(sources, targets, target_lengths)
        memory, last, encoder_tape = self.encoder.forward(sources, source_lengths)
        h, decoder_tape = self.decoder.forward(read, last)
        top = h
        if self.attention is not None:
            mixed, attention_tape = self.attention.forward(h, memory, source_lengths)
            before, join_tape = self.join.forward(np.concatenate([mixed, h], axis=-1))
            top = np.tanh(before)
        kept, drop_tape = self.drop.forward(top)
        logits, out_tape = self.out.forward(kept)
        loss, d_logits = nn.cross_entropy_grad(logits, wanted, lengths=ends, out=logits)

        out = self.out.backward(out_tape, d_logits)
        dh, d_memory = self.drop.backward(drop_tape, out["x"])["x"], None
        grads = {"out": out}
        if self.attention is not None:
            grads["join"] = self.join.backward(join_tape, dh * (1 - top * top))
            width = self.encoder.output_size
            d_mixed = np.ascontiguousarray(grads["join"]["x"][..., :width])
            grads["attention"] = self.attention.backward(attention_tape, d_mixed)
            dh = grads["join"]["x"][..., width:] + grads["attention"]["query"]
            d_memory = grads["attention"]["memory"]
        grads["decoder"] = self.decoder.backward(decoder_tape, dh)
        grads["encoder"] = self.encoder.backward(encoder_tape, d_memory, grads["decoder"]["vector"])
        parts = ("encoder", "decoder", "attention", "join", "out")
        return loss, self.named_gradients(**{part: grads[part] for part in parts if part in grads})

    def generate(
        self, sources: Any, lengths: Any = None, *, max_length: int = 64, beam: int = 1
    ) -> tuple[list[list[int]], Array]:
        """Return what the model writes for each source, and its log-probability.

        Parameters
        ----------
        sources : array of int [S, B]
        lengths : integers [B], optional
        max_length : int
            Symbols that are written at most, the end included.
        beam : int
            How many beginnings are gone on with; of 1 each symbol is the likeliest one.

        Returns
        -------
        sequences : list of B lists of int
            Without marks.
        scores : array [B]
        """
        options.positive("beam", beam)
        sources, lengths = self._sources(sources, lengths, "lengths")
        memory, last = self.encoder(sources, lengths)
        batch = len(last)
        state = self.decoder.first_state(np.repeat(last, beam, axis=0))
        prepared: Any = None
        if self.attention is not None:
            ends = None if lengths is None else np.repeat(lengths, beam)
            prepared = self.attention.prepare(np.repeat(memory, beam, axis=1), ends)

        def step(symbols: Any, state: Any) -> tuple[Array, Any]:
            h, state = self.decoder.step(symbols, state)
            if prepared is not None:
                mixed = self.attention.step(h, prepared)
                h = np.tanh(self.join(np.concatenate([mixed, h], axis=-1)))
            return self.out(h), state

        return beam_search(step, state, batch, width=beam, max_length=max_length)

    def alignment(self, sources: Any, targets: Any, lengths: Any = None) -> Array:
        """Return the attention's weights [T + 1, B, S] while it writes the targets and their end.

        Raises
        ------
        ValueError
            For a model without attention.
        """
        if self.attention is None:
            raise ValueError("alignment: expected a model with attention, got one without")
        sources, lengths = self._sources(sources, lengths, "lengths")
        read, _, _ = self._marked(sources, targets, None)
        memory, last = self.encoder(sources, lengths)
        _, weights = self.attention(self.decoder(read, last), memory, lengths, return_weights=True)
        return weights  # type: ignore[no-any-return]

    def _sources(self, sources: Any, lengths: Any, name: str) -> tuple[Array, Any]:
        found = arrays.integers("sources", sources, (None, None), self.encoder.embed.num_embeddings)
        steps, batch = found.shape
        least = 0 if self.attention is None else 1  # something to attend to
        if steps < least:
            raise ValueError(f"sources: expected at least one step, got shape {found.shape}")
        if lengths is None:
            return found, None
        return found, arrays.lengths(name, lengths, batch, steps, least)

    def _marked(self, sources: Array, targets: Any, lengths: Any) -> tuple[Array, Array, Array]:
        return marked(
            targets,
            lengths,
            batch=sources.shape[1],
            vocabulary=self.out.output_size,
            name="target_lengths",
        )
