package io.ferrite.client;

/** Outcome of a compare-and-swap: whether it was done, and what was there before (null: nothing). */
public record Swap(boolean done, byte[] previous) {}
