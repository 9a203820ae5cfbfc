"""Sound: read, write and mix it (numpy), and its spectrograms (torch).

===================  ===========================================================
``audio``            files to waveforms and back
``mixing``           levels in dB; noise at an SNR in dB
``spectrogram``      STFT, log magnitude and log-mel, batched on any device
``magnitudes``       what can be heard of magnitudes, and what a mask leaves
``mel``              bins of a spectrogram on the mel scale
===================  ===========================================================

Nothing is imported here, so that reading a sound file does not load torch.
"""
