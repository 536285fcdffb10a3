// A reader of Spinetail's L0 tables in C: hits that never enter the kernel.
//
//   struct spinetail_l0 reader;
//   const char *reason = spinetail_l0_open("/run/spinetail/l0.sock", "", &reader);   // NULL: open
//   switch (spinetail_l0_get(&reader, "user:7", 6, value, sizeof value, &length)) { … }
//   spinetail_l0_close(&reader);
//
// It is written from the layout alone (src/l0/ draws it, version 1) and shares no code with the server, so
// it proves that the layout is all one needs. One header, C11 and Linux; the hash is XXH3 of libxxhash
// (Debian: libxxhash-dev). A reader belongs to one thread; a program opens one for each.
//
//   socket ──> | alive, read | reports, read and write | table, read | table, read | … |     mapped files
//   key ─XXH3─> shard ─> slot, or one of the next seven ─> copied value ─> does the owner live? ─> hit
//
// A miss says nothing but "ask the appliance": the key may not be stored, not be published, or be on its way.

#ifndef SPINETAIL_L0_READER_H
#define SPINETAIL_L0_READER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE // F_GET_SEALS, MSG_CMSG_CLOEXEC
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the tables are little-endian, and keys are compared as words"
#endif
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a word is read by one instruction, or it is not read whole");

// What a look-up answers.
enum spinetail_l0_answer {
    SPINETAIL_L0_HIT,  // the value is copied
    SPINETAIL_L0_MISS, // ask the appliance
    SPINETAIL_L0_GONE, // the server that published this has ended: close, and open anew
};

// A word of shared memory. Loads are relaxed; their order comes from fences, which cost nothing on x86.
typedef _Atomic uint64_t spinetail_l0_word;

// A mapped file.
struct spinetail_l0_file {
    spinetail_l0_word *words; // of tables and of the alive file: never written, the mapping forbids it
    size_t word_count;
};

// Where a shard's entries are, and the mark that its owner leaves while it lives.
struct spinetail_l0_shard {
    const spinetail_l0_word *region;
    const spinetail_l0_word *alive;
    uint64_t owner;
    uint32_t home_count;
    uint32_t spill_count;
    uint64_t reports_tail; // of the ring in which hits are reported
    uint64_t hits;
};

enum {
    SPINETAIL_L0_LAYOUT = 1,
    SPINETAIL_L0_PAGE_BYTES = 4096,
    SPINETAIL_L0_FILE_HEADER_WORDS = 8,
    SPINETAIL_L0_REGION_ENTRY_WORDS = 4,
    SPINETAIL_L0_REGIONS_MAX =
        (SPINETAIL_L0_PAGE_BYTES / 8 - SPINETAIL_L0_FILE_HEADER_WORDS) / SPINETAIL_L0_REGION_ENTRY_WORDS,
    SPINETAIL_L0_STATE_WORDS = 8,
    SPINETAIL_L0_SLOT_WORDS = 24,
    SPINETAIL_L0_SLOT_HEADER_WORDS = 2,
    SPINETAIL_L0_SPILL_WORDS = 128,
    SPINETAIL_L0_PAD_WORDS = 8,
    SPINETAIL_L0_WINDOW = 8,
    SPINETAIL_L0_RETRIES = 64,
    SPINETAIL_L0_KEY_BYTES_MAX = 64,
    SPINETAIL_L0_VALUE_BYTES_MAX = SPINETAIL_L0_SPILL_WORDS * 8,
    SPINETAIL_L0_ALIVE_LINE_WORDS = 8,
    SPINETAIL_L0_REPORTS = 512,
    SPINETAIL_L0_RING_TAIL = 0,
    SPINETAIL_L0_RING_HITS = 1,
    SPINETAIL_L0_RING_HEAD = 8,
    SPINETAIL_L0_RING_FIRST = 16,
    SPINETAIL_L0_RING_WORDS = SPINETAIL_L0_RING_FIRST + SPINETAIL_L0_REPORTS / 2,
    SPINETAIL_L0_WISH_BYTES = 64,
    SPINETAIL_L0_TENANT_BYTES_MAX = 48,
    SPINETAIL_L0_ANSWER_BYTES_MAX = 1024,
    SPINETAIL_L0_ANSWER_HEADER_BYTES = 24,
    SPINETAIL_L0_DESCRIPTORS_MAX = 32,
    SPINETAIL_L0_TIMEOUT_SECONDS = 5,
};

#define SPINETAIL_L0_MAGIC "spinetL0"
#define SPINETAIL_L0_FLAG_SPILLED (UINT64_C(1) << 56)
#define SPINETAIL_L0_FLAG_PASSED (UINT64_C(2) << 56)
#define SPINETAIL_L0_EXPIRY_MS_MAX ((UINT64_C(1) << 48) - 1)

// A reader of one tenant's tables, for one thread. The fields are for looking at.
struct spinetail_l0 {
    int socket; // stays open: its end tells the server that nobody reads any more
    uint64_t seed;
    uint16_t shard_count;
    struct spinetail_l0_shard *shards;
    struct spinetail_l0_file alive;
    struct spinetail_l0_file reports;
    struct spinetail_l0_file tables[SPINETAIL_L0_DESCRIPTORS_MAX];
    int table_count;
    char text[SPINETAIL_L0_ANSWER_BYTES_MAX]; // where the appliance is asked, `native=ADDRESS shm=PATH`; or the complaint
};

// Asks the server at `path` for the tables of `tenant`; the empty name means this user's. Answers NULL, or why
// there is no reader, in words that live as long as `reader`. A reader that is not open need not be closed.
static const char *spinetail_l0_open(const char *path, const char *tenant, struct spinetail_l0 *reader);

// Looks up `key`. Of a hit's value as much is copied to `out` as fits there; `length` gets its whole length,
// which is SPINETAIL_L0_VALUE_BYTES_MAX at most. `length` is left alone unless there is a hit.
static enum spinetail_l0_answer spinetail_l0_get(struct spinetail_l0 *reader, const void *key, size_t key_bytes,
                                                 void *out, size_t out_bytes, size_t *length);

// Gives everything back.
static void spinetail_l0_close(struct spinetail_l0 *reader);

// --- Looking up -------------------------------------------------------------------------------
//
// A region, the published entries of one shard:
//
//   | state 64 B | slot 192 B | slot | … | seven slots more | spill cell 1024 B | … | 64 B |
//                         home ^ the entry is in one of the eight slots from here, or not published
//   state    | epoch u16 | … zeros |    rises with every flush: what has another epoch is not published
//
// A slot, a sequence lock around a key and its value:
//
//   word 0   | flags 8 | value bytes 16 | key bytes 8 | sequence 32 |      most significant bits first
//   word 1   | epoch 16 | expiry, ms of CLOCK_MONOTONIC, 48 |              0: never
//   word 2…  | key, zeros to a whole word | value, zeros to a whole word | or, in place of a value that does
//            not fit (flag 1): | number of its spill cell |
//
// An odd sequence: being written. No key bytes: nothing published here, and with flag 2 the search goes on
// all the same. The same even word 0 before and after means that nothing was written in between.

enum spinetail_l0_attempt { SPINETAIL_L0_COPIED, SPINETAIL_L0_OTHER, SPINETAIL_L0_END, SPINETAIL_L0_DISTURBED };

// What was copied out of a slot, and holds if the sequence says so.
struct spinetail_l0_copied {
    uint64_t life;
    size_t value_bytes;
    uint64_t value[SPINETAIL_L0_SPILL_WORDS];
};

static inline uint64_t spinetail_l0_load(const spinetail_l0_word *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline bool spinetail_l0_has_key(const spinetail_l0_word *words, const uint8_t *key, size_t key_bytes) {
    uint64_t differs = 0;
    for (size_t at = 0; at < key_bytes; at += 8) {
        uint64_t piece = 0; // zeros follow the key to the end of its last word
        memcpy(&piece, key + at, key_bytes - at < 8 ? key_bytes - at : 8);
        differs |= spinetail_l0_load(words + at / 8) ^ piece;
    }
    return differs == 0;
}

// Looks at one slot once.
static inline enum spinetail_l0_attempt spinetail_l0_look(const struct spinetail_l0_shard *shard, size_t slot,
                                                          const uint8_t *key, size_t key_bytes,
                                                          struct spinetail_l0_copied *copied) {
    const spinetail_l0_word *slots = shard->region + SPINETAIL_L0_STATE_WORDS;
    const spinetail_l0_word *words = slots + slot * SPINETAIL_L0_SLOT_WORDS;
    uint64_t head = spinetail_l0_load(words);
    atomic_thread_fence(memory_order_acquire); // what is read below is at least as new as `head`
    if (head & 1)
        return SPINETAIL_L0_DISTURBED;
    size_t its_key_bytes = head >> 32 & 0xff;
    if (its_key_bytes == 0)
        return head & SPINETAIL_L0_FLAG_PASSED ? SPINETAIL_L0_OTHER : SPINETAIL_L0_END;
    // A key of another length is another key; this also keeps the words of the key inside the slot.
    if (its_key_bytes != key_bytes)
        return SPINETAIL_L0_OTHER;
    size_t value_at = SPINETAIL_L0_SLOT_HEADER_WORDS + (key_bytes + 7) / 8;
    if (!spinetail_l0_has_key(words + SPINETAIL_L0_SLOT_HEADER_WORDS, key, key_bytes))
        return SPINETAIL_L0_OTHER;
    copied->life = spinetail_l0_load(words + 1);
    copied->value_bytes = head >> 40 & 0xffff;
    size_t value_words = (copied->value_bytes + 7) / 8;
    const spinetail_l0_word *from = words + value_at;
    size_t room = SPINETAIL_L0_SLOT_WORDS - value_at;
    if (head & SPINETAIL_L0_FLAG_SPILLED) {
        // The number may be torn like everything else: it is checked before it is followed.
        uint64_t cell = spinetail_l0_load(from);
        if (cell >= shard->spill_count)
            return SPINETAIL_L0_DISTURBED;
        size_t slot_count = (size_t)shard->home_count + SPINETAIL_L0_WINDOW - 1;
        from = slots + slot_count * SPINETAIL_L0_SLOT_WORDS + cell * SPINETAIL_L0_SPILL_WORDS;
        room = SPINETAIL_L0_SPILL_WORDS;
    }
    if (value_words > room)
        return SPINETAIL_L0_DISTURBED;
    for (size_t at = 0; at < value_words; at++)
        copied->value[at] = spinetail_l0_load(from + at);
    atomic_thread_fence(memory_order_acquire); // had any of these been newer than `head`, word 0 would differ now
    return spinetail_l0_load(words) == head ? SPINETAIL_L0_COPIED : SPINETAIL_L0_DISTURBED;
}

// Tells the shard which slot was hit, so that what is read here stays hot there.
//
//   ring:  | tail u64 | hits u64 | … 64 B | head u64 | … 64 B | report u32 × 512 |       one for each shard
//   report | log2 of its weight 4 | slot 28 |
//
// The reader writes tail, hits and reports, the shard the head. While the ring is half full, hits are counted
// but not reported: that loses some of what a busy reader could say, and never holds it up.
static inline void spinetail_l0_report(struct spinetail_l0 *reader, uint32_t number, uint32_t slot) {
    spinetail_l0_word *ring = reader->reports.words + (size_t)number * SPINETAIL_L0_RING_WORDS;
    struct spinetail_l0_shard *shard = &reader->shards[number];
    shard->hits += 1;
    atomic_store_explicit(ring + SPINETAIL_L0_RING_HITS, shard->hits, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(ring + SPINETAIL_L0_RING_HEAD, memory_order_acquire);
    if (shard->reports_tail - head >= SPINETAIL_L0_REPORTS / 2)
        return;
    size_t place = shard->reports_tail % SPINETAIL_L0_REPORTS;
    spinetail_l0_word *word = ring + SPINETAIL_L0_RING_FIRST + place / 2;
    unsigned shift = place % 2 * 32;
    uint64_t kept = spinetail_l0_load(word) & ~(UINT64_C(0xffffffff) << shift);
    atomic_store_explicit(word, kept | (uint64_t)slot << shift, memory_order_relaxed);
    shard->reports_tail += 1;
    // After the report: a shard that sees the tail sees what lies before it.
    atomic_store_explicit(ring + SPINETAIL_L0_RING_TAIL, shard->reports_tail, memory_order_release);
}

static inline bool spinetail_l0_is_over(uint64_t expires_ms) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 >= expires_ms;
}

// Looks at the eight slots where the key may be. Answers the slot that it was copied from, or -1.
static inline int64_t spinetail_l0_find(const struct spinetail_l0_shard *shard, uint64_t hash, const uint8_t *key,
                                        size_t key_bytes, struct spinetail_l0_copied *copied) {
    if (key_bytes == 0 || key_bytes > SPINETAIL_L0_KEY_BYTES_MAX)
        return -1; // neither is ever published
    size_t home = (hash & 0xffffffff) * shard->home_count >> 32;
    for (size_t slot = home; slot < home + SPINETAIL_L0_WINDOW; slot++) {
        enum spinetail_l0_attempt attempt = SPINETAIL_L0_DISTURBED;
        // A writer is done in some thirty nanoseconds unless it was interrupted; then the appliance answers.
        for (int retry = 0; retry < SPINETAIL_L0_RETRIES && attempt == SPINETAIL_L0_DISTURBED; retry++)
            attempt = spinetail_l0_look(shard, slot, key, key_bytes, copied);
        if (attempt == SPINETAIL_L0_COPIED)
            return (int64_t)slot;
        if (attempt == SPINETAIL_L0_END)
            return -1;
    }
    return -1;
}

static inline enum spinetail_l0_answer spinetail_l0_get(struct spinetail_l0 *reader, const void *key,
                                                        size_t key_bytes, void *out, size_t out_bytes,
                                                        size_t *length) {
    uint64_t hash = XXH3_64bits_withSeed(key, key_bytes, reader->seed);
    uint32_t number = (uint32_t)((hash >> 32) * reader->shard_count >> 32);
    const struct spinetail_l0_shard *shard = &reader->shards[number];
    struct spinetail_l0_copied copied;
    int64_t slot = spinetail_l0_find(shard, hash, key, key_bytes, &copied);
    bool is_hit = slot >= 0;
    if (is_hit) {
        uint64_t expires_ms = copied.life & SPINETAIL_L0_EXPIRY_MS_MAX;
        bool is_past = expires_ms != 0 && spinetail_l0_is_over(expires_ms);
        // After the copy, as all below: a flush acknowledged before the look-up shows here.
        bool is_flushed = copied.life >> 48 != (spinetail_l0_load(shard->region) & 0xffff);
        is_hit = !is_past && !is_flushed;
    }
    // If the owner lived after the copy, the value was current then. When a shard's thread ends, however it
    // ends, the kernel writes to its mark, before a successor can listen where the dead one did.
    if (spinetail_l0_load(shard->alive) != shard->owner)
        return SPINETAIL_L0_GONE;
    if (!is_hit)
        return SPINETAIL_L0_MISS;
    spinetail_l0_report(reader, number, (uint32_t)slot);
    memcpy(out, copied.value, copied.value_bytes < out_bytes ? copied.value_bytes : out_bytes);
    *length = copied.value_bytes;
    return SPINETAIL_L0_HIT;
}

// --- Opening ----------------------------------------------------------------------------------
//
//   program -> server   | "spinetL0" | layout u32 | tenant's length u8 | 0 × 3 | tenant, 48 bytes |    64 bytes
//   server -> program   | "spinetL0" | layout u32 | status u32 | tables u16 | 0 u16 | length of text u32 | text
//
// With status 0 come the descriptors: alive, reports, then the tables. Otherwise the text is the reason.
//
//   alive    | thread id of shard 0's owner u32 | … 64 B | of shard 1's | … |
//   table    0      | magic "spinetL0" | layout version u32 | words of a slot u32 |
//            16     | hash seed u64 | shards of the server u16 | regions here u16 | window u32 |
//            32     | words of a spill cell u32 | zeros |
//            64     | shard u32 | homes u32 | spill cells u32 | zero u32 | offset u64 | zero u64 |   for each region
//            4096 … | region | region | …

static inline const char *spinetail_l0_complain(struct spinetail_l0 *reader, const char *what, int error) {
    snprintf(reader->text, sizeof reader->text, "%s%s%s", what, error ? ": " : "", error ? strerror(error) : "");
    return reader->text;
}

// Maps a whole file.
static inline const char *spinetail_l0_map(struct spinetail_l0 *reader, int descriptor, int protection,
                                           struct spinetail_l0_file *file) {
    int seals = fcntl(descriptor, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return spinetail_l0_complain(reader, "the shared memory is not sealed: its owner could shrink it under us", 0);
    struct stat status;
    if (fstat(descriptor, &status) < 0)
        return spinetail_l0_complain(reader, "the shared memory has no size", errno);
    void *address = mmap(NULL, (size_t)status.st_size, protection, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED)
        return spinetail_l0_complain(reader, "the shared memory cannot be mapped", errno);
    file->words = address;
    file->word_count = (size_t)status.st_size / 8;
    return NULL;
}

// Reads a table's first page: everything it says is checked against the file's size before it is followed.
static inline const char *spinetail_l0_take_table(struct spinetail_l0 *reader, const struct spinetail_l0_file *table) {
    const spinetail_l0_word *words = table->words;
    uint64_t magic;
    memcpy(&magic, SPINETAIL_L0_MAGIC, sizeof magic);
    if (table->word_count < SPINETAIL_L0_PAGE_BYTES / 8 || spinetail_l0_load(words) != magic)
        return spinetail_l0_complain(reader, "the file is no L0 table", 0);
    if ((uint32_t)spinetail_l0_load(words + 1) != SPINETAIL_L0_LAYOUT)
        return spinetail_l0_complain(reader, "the table has another layout: update the older of the two", 0);
    const char *damaged = "the table's header does not fit its file";
    uint64_t counts = spinetail_l0_load(words + 3);
    uint16_t shard_count = (uint16_t)counts;
    uint16_t region_count = (uint16_t)(counts >> 16);
    if (spinetail_l0_load(words + 1) >> 32 != SPINETAIL_L0_SLOT_WORDS || counts >> 32 != SPINETAIL_L0_WINDOW ||
        spinetail_l0_load(words + 4) != SPINETAIL_L0_SPILL_WORDS || shard_count == 0 ||
        region_count > SPINETAIL_L0_REGIONS_MAX)
        return spinetail_l0_complain(reader, damaged, 0);
    if (reader->shards == NULL) {
        reader->shards = calloc(shard_count, sizeof *reader->shards);
        if (reader->shards == NULL)
            return spinetail_l0_complain(reader, "no memory", 0);
        reader->shard_count = shard_count;
        reader->seed = spinetail_l0_load(words + 2);
    }
    if (reader->shard_count != shard_count || reader->seed != spinetail_l0_load(words + 2))
        return spinetail_l0_complain(reader, "the tables are of different servers", 0);
    if (reader->alive.word_count < (size_t)shard_count * SPINETAIL_L0_ALIVE_LINE_WORDS ||
        reader->reports.word_count < (size_t)shard_count * SPINETAIL_L0_RING_WORDS)
        return spinetail_l0_complain(reader, "the files of liveness and reports do not cover the server's shards", 0);
    for (size_t number = 0; number < region_count; number++) {
        const spinetail_l0_word *entry =
            words + SPINETAIL_L0_FILE_HEADER_WORDS + number * SPINETAIL_L0_REGION_ENTRY_WORDS;
        uint32_t shard_number = (uint32_t)spinetail_l0_load(entry);
        uint32_t home_count = (uint32_t)(spinetail_l0_load(entry) >> 32);
        uint32_t spill_count = (uint32_t)spinetail_l0_load(entry + 1);
        uint64_t offset = spinetail_l0_load(entry + 2);
        // In 64 bits none of this wraps: the counts have 32, the sizes eight.
        uint64_t region_words = SPINETAIL_L0_STATE_WORDS +
                                ((uint64_t)home_count + SPINETAIL_L0_WINDOW - 1) * SPINETAIL_L0_SLOT_WORDS +
                                (uint64_t)spill_count * SPINETAIL_L0_SPILL_WORDS + SPINETAIL_L0_PAD_WORDS;
        if (offset % SPINETAIL_L0_PAGE_BYTES != 0 || home_count == 0 || shard_number >= shard_count ||
            offset / 8 + region_words > table->word_count)
            return spinetail_l0_complain(reader, damaged, 0);
        struct spinetail_l0_shard *shard = &reader->shards[shard_number];
        shard->region = words + offset / 8;
        shard->home_count = home_count;
        shard->spill_count = spill_count;
        shard->alive = reader->alive.words + (size_t)shard_number * SPINETAIL_L0_ALIVE_LINE_WORDS;
        shard->owner = spinetail_l0_load(shard->alive);
        // No owner yet or no more, or the kernel's mark of a dead one in the upper two bits.
        if (shard->owner == 0 || shard->owner >> 30 != 0)
            return spinetail_l0_complain(reader, "the server ended while it was greeted", 0);
    }
    return NULL;
}

// Sends the wish, receives the answer and its descriptors. Answers how many there are, or -1 with a complaint.
static inline int spinetail_l0_greet(struct spinetail_l0 *reader, const char *tenant, int *descriptors) {
    size_t tenant_bytes = strlen(tenant);
    if (tenant_bytes > SPINETAIL_L0_TENANT_BYTES_MAX) {
        spinetail_l0_complain(reader, "no tenant has a name that long", 0);
        return -1;
    }
    uint8_t wish[SPINETAIL_L0_WISH_BYTES] = {0};
    uint32_t layout = SPINETAIL_L0_LAYOUT;
    memcpy(wish, SPINETAIL_L0_MAGIC, 8);
    memcpy(wish + 8, &layout, sizeof layout);
    wish[12] = (uint8_t)tenant_bytes;
    memcpy(wish + 16, tenant, tenant_bytes);
    if (send(reader->socket, wish, sizeof wish, MSG_NOSIGNAL) != (ssize_t)sizeof wish) {
        spinetail_l0_complain(reader, "the server took no greeting", errno);
        return -1;
    }
    uint8_t answer[SPINETAIL_L0_ANSWER_BYTES_MAX];
    union {
        struct cmsghdr header; // for its alignment
        char bytes[CMSG_SPACE(SPINETAIL_L0_DESCRIPTORS_MAX * sizeof(int))];
    } control;
    struct iovec piece = {.iov_base = answer, .iov_len = sizeof answer};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t received;
    do {
        received = recvmsg(reader->socket, &message, MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    if (received < 0) {
        spinetail_l0_complain(reader, "the server did not answer", errno);
        return -1;
    }
    // Taken first, whatever the bytes say: descriptors that arrived are ours to close.
    int count = 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(descriptors, CMSG_DATA(header), (size_t)count * sizeof(int));
    }
    uint32_t status = 1, text_bytes = 0;
    uint16_t tables = 0;
    bool is_answer =
        received >= SPINETAIL_L0_ANSWER_HEADER_BYTES && memcmp(answer, SPINETAIL_L0_MAGIC, 8) == 0;
    if (is_answer) {
        memcpy(&status, answer + 12, sizeof status);
        memcpy(&tables, answer + 16, sizeof tables);
        memcpy(&text_bytes, answer + 20, sizeof text_bytes);
        is_answer = text_bytes <= (size_t)received - SPINETAIL_L0_ANSWER_HEADER_BYTES;
    }
    if (!is_answer || (status == 0 && (tables == 0 || count != tables + 2)))
        spinetail_l0_complain(reader, "this socket gives out no L0 tables", 0);
    else // ends with a zero: the text is shorter than the answer by its header
        snprintf(reader->text, sizeof reader->text, "%.*s", (int)text_bytes,
                 (const char *)answer + SPINETAIL_L0_ANSWER_HEADER_BYTES);
    if (is_answer && status == 0 && tables != 0 && count == tables + 2)
        return count;
    while (count > 0)
        close(descriptors[--count]);
    return -1;
}

static inline const char *spinetail_l0_open(const char *path, const char *tenant, struct spinetail_l0 *reader) {
    memset(reader, 0, sizeof *reader);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        reader->socket = -1;
        return spinetail_l0_complain(reader, "the path is too long for a Unix socket", 0);
    }
    memcpy(address.sun_path, path, strlen(path));
    reader->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const char *complaint = NULL;
    struct timeval patience = {.tv_sec = SPINETAIL_L0_TIMEOUT_SECONDS};
    if (reader->socket < 0 ||
        setsockopt(reader->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
        setsockopt(reader->socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0 ||
        connect(reader->socket, (const struct sockaddr *)&address, sizeof address) < 0)
        complaint = spinetail_l0_complain(reader, "nobody answers at the socket", errno);
    int descriptors[SPINETAIL_L0_DESCRIPTORS_MAX];
    int count = 0;
    if (complaint == NULL && (count = spinetail_l0_greet(reader, tenant, descriptors)) < 0)
        complaint = reader->text;
    for (int number = 0; number < count; number++) {
        struct spinetail_l0_file *file = number == 0   ? &reader->alive
                                         : number == 1 ? &reader->reports
                                                       : &reader->tables[reader->table_count++];
        int protection = number == 1 ? PROT_READ | PROT_WRITE : PROT_READ;
        if (complaint == NULL)
            complaint = spinetail_l0_map(reader, descriptors[number], protection, file);
        if (complaint == NULL && number >= 2)
            complaint = spinetail_l0_take_table(reader, file);
        close(descriptors[number]); // the mapping keeps the file
    }
    for (int number = 0; complaint == NULL && number < reader->shard_count; number++)
        if (reader->shards[number].region == NULL)
            complaint = spinetail_l0_complain(reader, "the server's tables do not cover its shards", 0);
    if (complaint != NULL)
        spinetail_l0_close(reader); // leaves the text
    return complaint;
}

static inline void spinetail_l0_close(struct spinetail_l0 *reader) {
    struct spinetail_l0_file *files[2] = {&reader->alive, &reader->reports};
    for (int number = 0; number < 2 + reader->table_count; number++) {
        struct spinetail_l0_file *file = number < 2 ? files[number] : &reader->tables[number - 2];
        if (file->words != NULL)
            munmap((void *)file->words, file->word_count * 8);
        file->words = NULL;
    }
    free(reader->shards);
    reader->shards = NULL;
    reader->table_count = 0;
    reader->shard_count = 0;
    if (reader->socket >= 0)
        close(reader->socket);
    reader->socket = -1;
}

#endif
