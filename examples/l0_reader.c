// Reads one key in Spinetail's shared memory; l0_reader.h is the reader.
//
//   cc -std=c11 -O2 -o l0_reader l0_reader.c
//   l0_reader SOCKET KEY           prints the value
//   l0_reader SOCKET --wait KEY    opens, prints "open", reads when a line comes in
//   l0_reader SOCKET --bench KEY   prints nanoseconds per look-up of a hot key
//
// Exit status: 0 hit, 1 miss (ask the appliance), 2 wrong arguments, 3 no table or its server has ended.

#include "l0_reader.h"

enum { HIT = 0, MISS = 1, USAGE = 2, FAILED = 3 };

static int print_value(struct spinetail_l0 *reader, const char *key) {
    char value[SPINETAIL_L0_VALUE_BYTES_MAX];
    size_t length;
    switch (spinetail_l0_get(reader, key, strlen(key), value, sizeof value, &length)) {
    case SPINETAIL_L0_HIT:
        fwrite(value, 1, length, stdout);
        putchar('\n');
        return HIT;
    case SPINETAIL_L0_MISS:
        fprintf(stderr, "'%s' is not published: ask the appliance at %s\n", key, reader->text);
        return MISS;
    case SPINETAIL_L0_GONE:
        break;
    }
    fprintf(stderr, "the server that published this table has ended\n");
    return FAILED;
}

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int bench(struct spinetail_l0 *reader, const char *key) {
    enum { ROUNDS = 7, LOOKUPS = 2000000 };
    char value[SPINETAIL_L0_VALUE_BYTES_MAX];
    size_t length, key_bytes = strlen(key);
    double best = 1e300; // of several rounds: the others were interrupted
    long misses = 0;
    uint64_t checksum = 0; // so that no look-up is left out
    for (int round = 0; round < ROUNDS; round++) {
        double started = now_ns();
        for (int lookup = 0; lookup < LOOKUPS; lookup++) {
            if (spinetail_l0_get(reader, key, key_bytes, value, sizeof value, &length) != SPINETAIL_L0_HIT)
                misses++;
            else
                checksum += length + (unsigned char)value[0];
        }
        double each = (now_ns() - started) / LOOKUPS;
        best = each < best ? each : best;
    }
    if (misses > 0) {
        fprintf(stderr, "%ld of %d look-ups missed: '%s' is not hot\n", misses, ROUNDS * LOOKUPS, key);
        return MISS;
    }
    printf("%.1f ns per look-up, checksum %llu\n", best, (unsigned long long)checksum);
    return HIT;
}

int main(int count, char **arguments) {
    bool has_mode = count == 4;
    const char *mode = has_mode ? arguments[2] : "";
    bool is_wait = strcmp(mode, "--wait") == 0, is_bench = strcmp(mode, "--bench") == 0;
    if ((count != 3 && count != 4) || (has_mode && !is_wait && !is_bench)) {
        fprintf(stderr, "usage: l0_reader SOCKET [--wait | --bench] KEY\n");
        return USAGE;
    }
    const char *key = arguments[count - 1];
    static struct spinetail_l0 reader;
    const char *complaint = spinetail_l0_open(arguments[1], "", &reader);
    if (complaint != NULL) {
        fprintf(stderr, "%s: %s\n", arguments[1], complaint);
        return FAILED;
    }
    if (is_wait) {
        puts("open");
        fflush(stdout);
        for (int byte = getchar(); byte != '\n' && byte != EOF;)
            byte = getchar();
    }
    int status = is_bench ? bench(&reader, key) : print_value(&reader, key);
    spinetail_l0_close(&reader);
    return status;
}
