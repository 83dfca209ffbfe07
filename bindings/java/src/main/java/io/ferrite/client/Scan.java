package io.ferrite.client;

import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.concurrent.CompletableFuture;

/** A scan under way: an iterator over its pairs, or page by page with futures. Close it unless it was read to its end. */
public final class Scan extends Held implements Iterator<Pair> {
    private Iterator<Pair> page = List.<Pair>of().iterator();
    private boolean ended;

    Scan(long handle) {
        super(handle);
    }

    /** The next pairs, at most {@code pairsMax} or for 0 about a MiB; empty at the end. A cancelled future loses no pair. */
    public CompletableFuture<List<Pair>> nextPage(int pairsMax) {
        return start(Op.NEXT, Args.begin().u32(pairsMax), Shape.PAIRS);
    }

    /** Throws a {@link FerriteException} inside of an {@link IllegalStateException}, as an iterator can. */
    @Override
    public boolean hasNext() {
        while (!page.hasNext() && !ended) {
            try {
                List<Pair> pairs = run(Op.NEXT, Args.begin().u32(0), Shape.PAIRS);
                ended = pairs.isEmpty();
                page = pairs.iterator();
            } catch (FerriteException error) {
                throw new IllegalStateException(error);
            }
        }
        if (ended) {
            close();
        }
        return !ended;
    }

    @Override
    public Pair next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        return page.next();
    }
}
