/* The rival of bench.cells: a C program that probes the same cells.
 *
 * The program opens one raw ICMP socket for each place inside its network namespace (setns). The
 * socket sends requests, receives requests as a witness, and receives replies: sendmmsg and
 * recvmmsg, driven by one epoll. A cell is an ICMP echo request with a nonce and the numbers of
 * both ends. It counts if the target's socket has the request from the source's address and the
 * source's socket has the kernel's reply.
 *
 * Silence is final by the rule of harness/probe/quiescence.py: a control packet has passed the
 * backlog of every processor, and the counters of all interfaces of the watched namespaces stood
 * still during such a pass.
 *
 *   prober CONTROL WATCHED [PASSES] < PLACES
 *
 * CONTROL and WATCHED are files of network namespaces. Each line of PLACES has the file of a
 * network namespace and an IPv4 address. The program probes every ordered pair of different places,
 * PASSES times. It prints a line about the last pass: cells, cells with a reply, and seconds from
 * the first packet to the last verdict.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, ROOM = 1 << 21, COUNTERS = 1 << 16 };

struct asked {
    struct icmphdr icmp;
    uint64_t nonce;
    uint32_t source, target;
} __attribute__((packed));

struct came {
    struct iphdr ip;
    struct asked asked;
} __attribute__((packed));

static struct place {
    int socket;
    struct in_addr address;
} *places;
static uint32_t count;
static uint64_t nonce;
static uint8_t *heard, *answered;
static size_t open_cells;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void enter(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
        fail(path);
    close(fd);
}

static uint16_t checksum(const void *data, size_t size)
{
    uint32_t sum = 0;
    for (size_t at = 0; at < size; at += 2) {
        uint16_t word;
        memcpy(&word, (const char *)data + at, sizeof word);
        sum += word;
    }
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void note(uint8_t *flags, const uint8_t *others, size_t cell)
{
    if (!flags[cell]) {
        flags[cell] = 1;
        open_cells -= others[cell];
    }
}

/* Receive all packets at one place; return whether there were any. */
static int hear(uint32_t number)
{
    static struct came slots[BATCH];
    static struct iovec vectors[BATCH];
    static struct mmsghdr messages[BATCH];
    int any = 0, got;
    for (int at = 0; at < BATCH; at++) {
        vectors[at] = (struct iovec){&slots[at], sizeof slots[at]};
        messages[at].msg_hdr = (struct msghdr){.msg_iov = &vectors[at], .msg_iovlen = 1};
    }
    while ((got = recvmmsg(places[number].socket, messages, BATCH, MSG_DONTWAIT, NULL)) > 0) {
        any = 1;
        for (int at = 0; at < got; at++) {
            struct came *came = &slots[at];
            struct asked *asked = &came->asked;
            if (messages[at].msg_len != sizeof *came || came->ip.ihl != 5 || asked->nonce != nonce)
                continue;
            size_t cell = (size_t)asked->source * count + asked->target;
            struct in_addr source = places[asked->source].address;
            struct in_addr target = places[asked->target].address;
            if (asked->icmp.type == ICMP_ECHO && asked->target == number &&
                came->ip.saddr == source.s_addr)
                note(heard, answered, cell);
            else if (asked->icmp.type == ICMP_ECHOREPLY && asked->source == number &&
                     came->ip.saddr == target.s_addr)
                note(answered, heard, cell);
        }
    }
    return any;
}

static int pump(int epoll)
{
    struct epoll_event events[512];
    int any = 0, got;
    while ((got = epoll_wait(epoll, events, 512, 0)) > 0)
        for (int at = 0; at < got; at++)
            any |= hear(events[at].data.u32);
    return any;
}

static void ask(uint32_t source, int epoll)
{
    static struct asked requests[BATCH];
    static struct sockaddr_in names[BATCH];
    static struct iovec vectors[BATCH];
    static struct mmsghdr messages[BATCH];
    for (uint32_t target = 0; target < count;) {
        unsigned filled = 0;
        for (; target < count && filled < BATCH; target++) {
            if (target == source)
                continue;
            struct asked *request = &requests[filled];
            *request = (struct asked){.icmp.type = ICMP_ECHO, .nonce = nonce,
                                      .source = source, .target = target};
            request->icmp.checksum = checksum(request, sizeof *request);
            names[filled] = (struct sockaddr_in){.sin_family = AF_INET,
                                                 .sin_addr = places[target].address};
            vectors[filled] = (struct iovec){request, sizeof *request};
            messages[filled].msg_hdr = (struct msghdr){
                .msg_name = &names[filled], .msg_namelen = sizeof names[filled],
                .msg_iov = &vectors[filled], .msg_iovlen = 1};
            filled++;
        }
        for (unsigned sent = 0; sent < filled;) {
            int now = sendmmsg(places[source].socket, messages + sent, filled - sent, 0);
            sent += now > 0 ? now : 1; /* an error: the target does not receive the request */
        }
        pump(epoll);
    }
}

/* Send a control packet through the backlog of every processor. */
static void flush(int control)
{
    cpu_set_t all, one;
    char byte = 0;
    if (sched_getaffinity(0, sizeof all, &all) < 0)
        fail("sched_getaffinity");
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
        if (send(control, &byte, 1, 0) != 1 || recv(control, &byte, 1, 0) != 1)
            fail("control packet");
    }
    sched_setaffinity(0, sizeof all, &all);
}

static void until_quiet(int epoll, int control, int counters)
{
    static char before[COUNTERS], now[COUNTERS];
    memset(before, 0, sizeof before);
    while (open_cells) {
        flush(control);
        memset(now, 0, sizeof now);
        size_t size = 0;
        for (ssize_t got; (got = pread(counters, now + size, sizeof now - size - 1, size)) > 0;)
            size += got;
        int still = !memcmp(before, now, sizeof now);
        memcpy(before, now, sizeof now);
        if (!pump(epoll) && still)
            return;
    }
}

int main(int argc, char **argv)
{
    int passes = argc == 4 ? atoi(argv[3]) : 1;
    if ((argc != 3 && argc != 4) || passes < 1) {
        fprintf(stderr, "usage: prober CONTROL WATCHED [PASSES] < PLACES\n");
        return 2;
    }
    enter(argv[1]);
    int control = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof own;
    if (bind(control, (void *)&own, length) || getsockname(control, (void *)&own, &length) ||
        connect(control, (void *)&own, length))
        fail("control socket");
    enter(argv[2]);
    int counters = open("/proc/thread-self/net/dev", O_RDONLY | O_CLOEXEC);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (counters < 0 || epoll < 0)
        fail("counters, epoll");

    char path[256], address[64];
    while (scanf("%255s %63s", path, address) == 2) {
        places = realloc(places, (count + 1) * sizeof *places);
        enter(path);
        int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP), room = ROOM;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = count};
        if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            fail("raw socket");
        places[count].socket = fd;
        if (inet_pton(AF_INET, address, &places[count++].address) != 1)
            fail(address);
    }
    size_t cells = (size_t)count * (count - 1);
    heard = calloc(count, count);
    answered = calloc(count, count);

    double took = 0;
    for (; passes > 0; passes--) {
        if (getrandom(&nonce, sizeof nonce, 0) != sizeof nonce)
            fail("getrandom");
        memset(heard, 0, (size_t)count * count);
        memset(answered, 0, (size_t)count * count);
        open_cells = cells;
        double began = seconds();
        for (uint32_t source = 0; source < count; source++)
            ask(source, epoll);
        until_quiet(epoll, control, counters);
        took = seconds() - began;
    }
    printf("%zu %zu %.6f\n", cells, cells - open_cells, took);
    return 0;
}
