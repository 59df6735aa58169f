"""The same training step in bsojax, SpikingJelly, snnTorch and spyx, on one machine in one session.

``python -m benchmarks.peers`` runs each contender in its own processes, one after another, prints ratios and writes
benchmarks/results/peers.json. The peers have their own environment, .venv-peers.

The job: one optimizer step on 64 grey images of 28 x 28, float32, shown T times. The network is
conv 3x3 (1 to 32, with bias), norm, LIF, average pooling 2x2, conv 3x3 (32 to 64), norm, LIF, average pooling 2x2,
conv 3x3 (64 to 128), norm, LIF, average over space, dense (128 to 10); LIF with decay 0.5, threshold 1, a reset that
subtracts it and a sigmoid surrogate of slope 4; batch normalisation; cross entropy at every time step. Images and
labels are random, from a fixed seed: only time and memory are measured.

What differs is what is compared. bsojax keeps signs in all but the first and last layer and updates after every time
step, by T-BSO and Adam. The peers keep real weights and update by Adam once per sequence, which is the cheaper way for
those that could update at every step. SpikingJelly's OTTT and SLTT go online, with its own neurons and containers; its
BPTT, snnTorch and spyx go back through time. spyx's neurons spike a step late, so that in T time steps it has less to
do than the others; with T useful time steps its readout sees the input in T of them.
"""
