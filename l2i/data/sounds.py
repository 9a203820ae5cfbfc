"""Everyday sounds, synthesised: what they are made of, and one function for each.

A sound is a function from a time axis ``t`` (seconds, float64 ``[S]``) and a random generator to
a waveform ``[S]`` of any level, from which everything that follows is free to choose its gain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from l2i.dsp.mixing import rms

__all__ = [
    "SAMPLE_RATE",
    "SOUNDS",
    "Rng",
    "Signal",
    "alarm",
    "band_noise",
    "bell",
    "birds",
    "clock",
    "damped",
    "echoes",
    "engine",
    "fade",
    "footsteps",
    "rain",
    "siren",
    "strike",
    "tone",
    "whole_or_part",
]

SAMPLE_RATE = 16000
"""Hz."""

Signal = NDArray[np.float64]
Rng = np.random.Generator


def tone(frequency: Signal, harmonics: Sequence[float]) -> Signal:
    """A tone with overtones, its pitch following `frequency` (Hz, ``[S]``).

    The phase is the integral of the frequency. Overtones follow by
    ``sin kp = 2 cos p sin (k-1)p - sin (k-2)p``, which saves a sine for each; above Nyquist they
    are left out, sample by sample, since they would fold back.
    """
    cycles = np.cumsum(frequency) / SAMPLE_RATE
    # Within one turn float32 is exact enough, and its sine ten times as fast.
    phase = (2 * np.pi * (cycles - np.floor(cycles))).astype(np.float32)
    before, now = np.zeros_like(frequency), np.sin(phase).astype(np.float64)
    twice_cos = 2 * np.cos(phase).astype(np.float64)
    highest = frequency.max()
    x = np.zeros_like(frequency)
    for k, gain in enumerate(harmonics, start=1):
        if k > 1:
            before, now = now, twice_cos * now - before
        if gain and k * highest < SAMPLE_RATE / 2:
            x += gain * now
        elif gain:
            x += gain * now * (k * frequency < SAMPLE_RATE / 2)
    return x


def band_noise(n: int, low: float, high: float, rng: Rng) -> Signal:
    """Noise between two frequencies (Hz), with slopes of an octave, about unit level."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    octaves = np.log2(np.fft.rfftfreq(n, 1 / SAMPLE_RATE).clip(1.0))
    spectrum *= np.clip(octaves - np.log2(low) + 1, 0, 1)
    spectrum *= np.clip(np.log2(high) - octaves + 1, 0, 1)
    noise = np.fft.irfft(spectrum, n)
    return noise / max(rms(noise), 1e-9)


def fade(t: Signal, start: float, end: float, seconds: float) -> Signal:
    """1 between two times, 0 outside; the edges are cubic, with no corner at either end."""
    edge = np.clip(np.minimum(t - start, end - t) / seconds, 0, 1)
    return edge * edge * (3 - 2 * edge)


def whole_or_part(t: Signal, rng: Rng) -> Signal:
    """An envelope for what sounds on: now the whole clip, now from or until somewhere in it."""
    length = t[-1]
    start = rng.uniform(-0.3, 0.3) * length
    end = rng.uniform(0.75, 1.3) * length
    return fade(t, start, end, rng.uniform(0.02, 0.2) * length)


def strike(x: Signal, at: float, sound: Signal) -> None:
    """Add a short sound to a clip at a time in seconds, in place; what goes beyond is lost."""
    start = round(at * SAMPLE_RATE)
    piece = sound[max(0, -start) : max(0, x.size - start)]
    x[max(0, start) : max(0, start) + piece.size] += piece


def damped(seconds: float, partials: Sequence[tuple[float, float, float]]) -> Signal:
    """Decaying sines: (frequency in Hz, gain, time to fall to 1/e in seconds) each.

    Sample n is the imaginary part of ``z^n``, and ``z^(256 a + b) = z^(256 a) z^b``: one product
    per sample in place of an exponential and a sine.
    """
    n = round(seconds * SAMPLE_RATE)
    coarse, fine = 256.0 * np.arange(n // 256 + 1), np.arange(256.0)
    x = np.zeros(n)
    for frequency, gain, decay in partials:
        if frequency < SAMPLE_RATE / 2:
            log_z = complex(-1 / decay, 2 * np.pi * frequency) / SAMPLE_RATE
            x += gain * np.outer(np.exp(log_z * coarse), np.exp(log_z * fine)).imag.ravel()[:n]
    return x


def echoes(x: Signal, rng: Rng) -> Signal:
    """A few reflections of a room: later ones are weaker, and each arrives with its own sign."""
    wet = x.copy()
    decay = rng.uniform(0.02, 0.15)
    for _ in range(rng.integers(0, 7)):
        delay = rng.uniform(0.004, 0.2)
        n = round(delay * SAMPLE_RATE)
        gain = 0.6 * np.exp(-delay / decay) * rng.choice([-1.0, 1.0])
        if n < x.size:
            wet[n:] += gain * x[:-n]
    return wet


def siren(t: Signal, rng: Rng) -> Signal:
    """A pitch that wails up and down."""
    low, high = rng.uniform(400, 700), rng.uniform(1000, 1700)
    cycles_per_s = rng.uniform(0.4, 1.6)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * (cycles_per_s * t + rng.uniform()))
    frequency = low * np.exp(np.log(high / low) * sweep)
    return tone(frequency, (1, rng.uniform(0.2, 0.6), rng.uniform(0.05, 0.4))) * whole_or_part(
        t, rng
    )


def bell(t: Signal, rng: Rng) -> Signal:
    """One to three strokes; partials that are no multiples of one pitch, high ones dying first."""
    pitch, ring = rng.uniform(250, 900), rng.uniform(0.25, 0.9)
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.52, 2.98, 4.1]) * rng.uniform(0.98, 1.02, 8)
    gains = rng.uniform(0.3, 1.0, 8) / (1 + 0.4 * np.arange(8))
    stroke = damped(
        t[-1], [(pitch * r, g, ring / r**0.7) for r, g in zip(ratios, gains, strict=True)]
    )
    x = np.zeros_like(t)
    at = rng.uniform(0, 0.35) * t[-1]
    gap = rng.uniform(0.35, 0.9)
    for _ in range(rng.integers(1, 4)):
        strike(x, at, stroke * rng.uniform(0.6, 1.0))
        at += gap
    return x


def engine(t: Signal, rng: Rng) -> Signal:
    """A low hum with many overtones, wandering in pitch and beating with its strokes."""
    pitch = rng.uniform(35, 110) * (1 + rng.uniform(-0.25, 0.25) * t / t[-1])
    pitch = pitch * (1 + 0.03 * np.sin(2 * np.pi * rng.uniform(0.5, 3) * t))
    harmonics = rng.uniform(0.3, 1.0, 14) / np.arange(1, 15) ** rng.uniform(0.4, 1.0)
    beat = 1 + rng.uniform(0.1, 0.6) * np.sin(2 * np.pi * np.cumsum(pitch / 2) / SAMPLE_RATE)
    rumble = band_noise(t.size, 60, 500, rng) * rng.uniform(0.05, 0.4)
    return (tone(pitch, tuple(harmonics)) + rumble) * beat * whole_or_part(t, rng)


def clock(t: Signal, rng: Rng) -> Signal:
    """Tick and tock in turn: clicks of a few milliseconds, regular as nothing else here."""
    gap = 1 / rng.uniform(2.0, 5.0)
    high = rng.uniform(2200, 4800)
    sounds = [
        damped(0.03, [(f, 1.0, 0.002), (1.7 * f, 0.6, 0.0015), (0.45 * f, 0.4, 0.004)])
        for f in (high, high * rng.uniform(0.7, 0.95))
    ]
    x = np.zeros_like(t)
    for i, at in enumerate(np.arange(rng.uniform(0, gap), t[-1], gap)):
        strike(x, at + rng.normal(0, 0.002), sounds[i % 2] * rng.uniform(0.8, 1.0))
    return x


def birds(t: Signal, rng: Rng) -> Signal:
    """Phrases of quick chirps, high and gliding."""
    x = np.zeros_like(t)
    at = rng.uniform(0, 0.3)
    while at < t[-1]:
        low, glide = rng.uniform(2300, 4500), rng.uniform(0.75, 1.5)
        length, gap = rng.uniform(0.04, 0.14), rng.uniform(0.05, 0.16)
        n = round(length * SAMPLE_RATE)
        ramp = np.arange(n) / n
        trill = 1 + rng.uniform(0, 0.06) * np.sin(2 * np.pi * rng.uniform(20, 60) * ramp * length)
        chirp = tone(low * glide**ramp * trill, (1, 0.15)) * np.sin(np.pi * ramp)
        for _ in range(rng.integers(2, 7)):
            strike(x, at, chirp * rng.uniform(0.6, 1.0))
            at += length + gap
        at += rng.uniform(0.1, 0.6)
    return x


def rain(t: Signal, rng: Rng) -> Signal:
    """A bright rustle, with drops that are heard one by one."""
    hiss = band_noise(t.size, rng.uniform(900, 2200), rng.uniform(5000, 7500), rng)
    x = hiss * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.2, 1) * t + rng.uniform(0, 6)))
    for _ in range(rng.integers(20, 90)):
        f = rng.uniform(1200, 6500)
        strike(x, rng.uniform(0, t[-1]), rng.uniform(1, 5) * damped(0.01, [(f, 1, 0.002)]))
    return x * whole_or_part(t, rng)


def footsteps(t: Signal, rng: Rng) -> Signal:
    """Heel and toe: two dull thuds per step, with some grit."""
    gap, shoe = 1 / rng.uniform(1.3, 2.6), rng.uniform(70, 180)
    n = round(0.12 * SAMPLE_RATE)
    decay = np.exp(-np.arange(n) / SAMPLE_RATE / rng.uniform(0.01, 0.03))
    x = np.zeros_like(t)
    at = rng.uniform(0, gap)
    while at < t[-1]:
        level = rng.uniform(0.7, 1.0)
        grit = band_noise(n, 300, rng.uniform(900, 2000), rng) * decay * rng.uniform(0.1, 0.35)
        heel = damped(0.12, [(shoe, 1.0, 0.03), (2.3 * shoe, 0.5, 0.02)]) + grit
        strike(x, at, level * heel)
        strike(x, at + rng.uniform(0.07, 0.12), 0.5 * level * heel)
        at += gap * rng.uniform(0.93, 1.07)
    return x


def alarm(t: Signal, rng: Rng) -> Signal:
    """Beeps of a steady pitch, on and off, in threes or without end, of one pitch or two."""
    pitch, per_s = rng.uniform(800, 3000), rng.uniform(2.5, 7.0)
    other = pitch * rng.choice([1.0, rng.uniform(0.6, 0.85)])
    position = per_s * t + rng.uniform(0, 4)
    count = np.floor(position).astype(int)
    on = fade(position - count, 0.0, rng.uniform(0.4, 0.75), 0.05)
    if rng.uniform() < 0.4:
        on = on * (count % 4 < 3)
    frequency = np.where(count % 2 == 0, pitch, other)
    # Odd overtones, as a piezo driven by a square wave has them.
    x = tone(frequency, (1, 0, rng.uniform(0.1, 0.35), 0, rng.uniform(0, 0.2)))
    return x * on * whole_or_part(t, rng)


SOUNDS: dict[str, Callable[[Signal, Rng], Signal]] = {
    "alarm": alarm,
    "bell": bell,
    "birds": birds,
    "clock": clock,
    "engine": engine,
    "footsteps": footsteps,
    "rain": rain,
    "siren": siren,
}
