package io.ferrite.client;

/** A key and its value. */
public record Pair(byte[] key, byte[] value) {}
