package io.ferrite.client;

/** Fingerprint of the pairs in a range. */
public record Checksum(long crc64Xor, long pairs, long bytes) {}
