/*
 * The system calls of a container start on a bridge, and nothing else.
 *
 * What mydocker's library does between the call and the running command, in C: a
 * network namespace, a veth pair on a bridge with address and default route, the
 * other namespaces, an overlay, /proc, /sys, /dev with its devices, masked paths,
 * the capabilities of the default set, two forks and an exec. No policy, no
 * checks, no records but the three files that mydocker writes as well.
 *
 *     start LOWER SCRATCH ROUNDS    prints one line of milliseconds per round
 *
 * Run it inside namespaces of its own (bench/reference.py does): it makes a bridge.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(call)                                                            \
    do {                                                                       \
        if ((call) < 0) {                                                      \
            fprintf(stderr, "%s: %s\n", #call, strerror(errno));               \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

static const char *DEVICES[] = {"null", "zero", "full", "random", "urandom", "tty"};
static const char *HIDDEN[] = {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                               "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
                               "/proc/timer_list", "/proc/timer_stats",
                               "/sys/devices/virtual/powercap", "/sys/firmware"};
static const char *READ_ONLY[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                  "/proc/sysrq-trigger"};
static const int KEPT[] = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31};
#define COUNT(list) (sizeof(list) / sizeof *(list))

/* --- netlink ------------------------------------------------------------- */

static char batch[8192];
static size_t filled;
static int asked;
static unsigned sequence;

static struct nlmsghdr *begin(int type, int flags, const void *body, size_t size) {
    struct nlmsghdr *message = (void *)(batch + filled);
    memset(message, 0, NLMSG_SPACE(size));
    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message->nlmsg_seq = ++sequence;
    message->nlmsg_len = NLMSG_LENGTH(size);
    memcpy(NLMSG_DATA(message), body, size);
    asked++;
    return message;
}

static struct rtattr *put(struct nlmsghdr *message, int type, const void *data, size_t size) {
    struct rtattr *attribute = (void *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(size);
    if (size)
        memcpy(RTA_DATA(attribute), data, size);
    message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + RTA_ALIGN(attribute->rta_len);
    return attribute;
}

static void close_nest(struct nlmsghdr *message, struct rtattr *nest) {
    nest->rta_len = (char *)message + message->nlmsg_len - (char *)nest;
}

static void end(struct nlmsghdr *message) { filled += NLMSG_ALIGN(message->nlmsg_len); }

static void commit(void) {
    int fd;
    char answer[8192];
    CHECK(fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    CHECK(send(fd, batch, filled, 0));
    while (asked > 0) {
        ssize_t length = recv(fd, answer, sizeof answer, 0);
        CHECK(length);
        for (struct nlmsghdr *m = (void *)answer; NLMSG_OK(m, length); m = NLMSG_NEXT(m, length)) {
            struct nlmsgerr *error = NLMSG_DATA(m);
            if (m->nlmsg_type == NLMSG_ERROR && error->error) {
                fprintf(stderr, "netlink: %s\n", strerror(-error->error));
                exit(1);
            }
            asked--;
        }
    }
    close(fd);
    filled = 0;
}

static void set_up(unsigned index) {
    struct ifinfomsg link = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    end(begin(RTM_NEWLINK, 0, &link, sizeof link));
}

static void add_address(unsigned index, in_addr_t address, int prefix) {
    struct ifaddrmsg body = {.ifa_family = AF_INET, .ifa_prefixlen = prefix, .ifa_index = index};
    struct nlmsghdr *message = begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
    put(message, IFA_LOCAL, &address, 4);
    put(message, IFA_ADDRESS, &address, 4);
    end(message);
}

static unsigned add_bridge(in_addr_t address) {
    struct ifinfomsg link = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct nlmsghdr *message = begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
    put(message, IFLA_IFNAME, "refbr0", 7);
    struct rtattr *info = put(message, IFLA_LINKINFO, NULL, 0);
    put(message, IFLA_INFO_KIND, "bridge", 7);
    close_nest(message, info);
    end(message);
    commit();
    unsigned index = if_nametoindex("refbr0");
    add_address(index, address, 16);
    commit();
    return index;
}

static void add_pair(unsigned bridge, int netns, int number) {
    char name[IFNAMSIZ];
    snprintf(name, sizeof name, "ref%d", number);
    struct ifinfomsg link = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP}, peer = {.ifi_index = 2};
    struct nlmsghdr *message = begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
    put(message, IFLA_IFNAME, name, strlen(name) + 1);
    put(message, IFLA_MASTER, &bridge, 4);
    struct rtattr *info = put(message, IFLA_LINKINFO, NULL, 0);
    put(message, IFLA_INFO_KIND, "veth", 5);
    struct rtattr *data = put(message, IFLA_INFO_DATA, NULL, 0);
    struct rtattr *far = put(message, VETH_INFO_PEER, &peer, sizeof peer);
    put(message, IFLA_IFNAME, "eth0", 5);
    put(message, IFLA_NET_NS_FD, &netns, 4);
    close_nest(message, far);
    close_nest(message, data);
    close_nest(message, info);
    end(message);
    commit();
}

static void furnish(in_addr_t address, in_addr_t gateway) {
    struct rtmsg route = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN,
                          .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
    set_up(1);
    add_address(2, address, 16);
    set_up(2);
    struct nlmsghdr *message = begin(RTM_NEWROUTE, NLM_F_CREATE, &route, sizeof route);
    put(message, RTA_GATEWAY, &gateway, 4);
    end(message);
    commit();
}

/* --- files ---------------------------------------------------------------- */

static void record(const char *directory, const char *name) {
    char scratch[512], path[512], text[1024];
    memset(text, 'x', sizeof text);
    snprintf(scratch, sizeof scratch, "%s/%s.new", directory, name);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(scratch, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd);
    CHECK(write(fd, text, sizeof text));
    close(fd);
    CHECK(rename(scratch, path));
}

static int clone_mount(const char *path) {
    return syscall(SYS_open_tree, AT_FDCWD, path, 1 /* OPEN_TREE_CLONE */ | O_CLOEXEC);
}

static void attach(int tree, const char *target) {
    close(open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    CHECK(syscall(SYS_move_mount, tree, "", AT_FDCWD, target, 4 /* MOVE_MOUNT_F_EMPTY_PATH */));
    close(tree);
}

static void enter_root(const char *lower, const char *directory) {
    char options[2048], path[512];
    int devices[COUNT(DEVICES)], files[3];
    const char *names[] = {"hosts", "hostname", "resolv.conf"};
    const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    for (size_t i = 0; i < COUNT(DEVICES); i++) {
        snprintf(path, sizeof path, "/dev/%s", DEVICES[i]);
        CHECK(devices[i] = clone_mount(path));
    }
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        CHECK(files[i] = clone_mount(path));
    }
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work%s", lower,
             directory, directory, getenv("REFERENCE_USERXATTR") ? ",userxattr" : "");
    snprintf(path, sizeof path, "%s/rootfs", directory);
    CHECK(mount("overlay", path, "overlay", MS_NODEV, options));
    CHECK(chdir(path));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755), mkdir("/etc", 0755);
    CHECK(mount("proc", "/proc", "proc", quiet, NULL));
    CHECK(mount("sysfs", "/sys", "sysfs", quiet | MS_RDONLY, NULL));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
    CHECK(mount("tmpfs", "/dev", "tmpfs", quiet | MS_STRICTATIME, "mode=755,size=65536k"));
    for (size_t i = 0; i < COUNT(DEVICES); i++) {
        snprintf(path, sizeof path, "/dev/%s", DEVICES[i]);
        attach(devices[i], path);
    }
    CHECK(symlink("/proc/self/fd", "/dev/fd"));
    CHECK(symlink("/proc/self/fd/0", "/dev/stdin"));
    CHECK(symlink("/proc/self/fd/1", "/dev/stdout"));
    CHECK(symlink("/proc/self/fd/2", "/dev/stderr"));
    CHECK(symlink("pts/ptmx", "/dev/ptmx"));
    mkdir("/dev/pts", 0755), mkdir("/dev/shm", 0755), mkdir("/dev/mqueue", 0755);
    CHECK(mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
                "newinstance,ptmxmode=0666,mode=0620"));
    CHECK(mount("tmpfs", "/dev/shm", "tmpfs", quiet, "mode=1777,size=65536k"));
    mount("mqueue", "/dev/mqueue", "mqueue", quiet, NULL);
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "/etc/%s", names[i]);
        attach(files[i], path);
    }
}

static void confine(void) {
    const unsigned long locked = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    for (size_t i = 0; i < COUNT(HIDDEN); i++)
        if (mount("/dev/null", HIDDEN[i], NULL, MS_BIND, NULL) < 0 && errno == ENOTDIR)
            CHECK(mount("tmpfs", HIDDEN[i], "tmpfs", locked, "size=0"));
    for (size_t i = 0; i < COUNT(READ_ONLY); i++)
        if (access(READ_ONLY[i], F_OK) == 0) {
            CHECK(mount(READ_ONLY[i], READ_ONLY[i], NULL, MS_BIND, NULL));
            CHECK(mount(NULL, READ_ONLY[i], NULL, MS_BIND | MS_REMOUNT | locked, NULL));
        }
    unsigned long kept = 0;
    for (size_t i = 0; i < COUNT(KEPT); i++)
        kept |= 1UL << KEPT[i];
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (!(kept >> capability & 1))
            CHECK(prctl(PR_CAPBSET_DROP, capability));
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{kept, kept, 0}, {kept >> 32, kept >> 32, 0}};
    CHECK(syscall(SYS_capset, &header, data));
}

/* --- one start ------------------------------------------------------------ */

static void pid_1(const char *lower, const char *directory, int go, int report) {
    char word;
    enter_root(lower, directory);
    CHECK(sethostname("reference", 9));
    umask(022);
    confine();
    if (read(go, &word, 1) != 1)
        _exit(1);
    int out[2], err[2];
    CHECK(pipe2(out, O_CLOEXEC));
    CHECK(pipe2(err, O_CLOEXEC));
    pid_t command = fork();
    CHECK(command);
    if (command == 0) {
        int null = open("/dev/null", O_RDONLY);
        CHECK(setsid());
        dup2(null, 0), dup2(out[1], 1), dup2(err[1], 2);
        execl("/bin/sleep", "sleep", "1000", NULL);
        _exit(127); /* closes `report` as the exec does; the caller sees the pipe stay silent */
    }
    close(report);
    while (wait(NULL) > 0)
        ;
    _exit(0);
}

static double start(unsigned bridge, const char *lower, const char *scratch, int number,
                    pid_t *started) {
    char directory[256], path[512];
    struct timespec began, ended;
    snprintf(directory, sizeof directory, "%s/%d", scratch, number);
    clock_gettime(CLOCK_MONOTONIC, &began);

    CHECK(mkdir(directory, 0700));
    for (const char **name = (const char *[]){"upper", "work", "rootfs", NULL}; *name; name++) {
        snprintf(path, sizeof path, "%s/%s", directory, *name);
        CHECK(mkdir(path, 0755));
    }
    record(directory, "config"), record(directory, "state");
    record(directory, "hosts"), record(directory, "hostname"), record(directory, "resolv.conf");

    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), netns;
    CHECK(home);
    CHECK(unshare(CLONE_NEWNET));
    CHECK(netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    CHECK(setns(home, CLONE_NEWNET));

    int go[2], report[2];
    CHECK(pipe2(go, O_CLOEXEC));
    CHECK(pipe2(report, O_CLOEXEC));
    pid_t outer = fork(), pid;
    CHECK(outer);
    if (outer == 0) {
        close(go[1]), close(report[0]);
        setsid();
        CHECK(unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWCGROUP));
        CHECK(setns(netns, CLONE_NEWNET));
        pid = fork();
        CHECK(pid);
        if (pid == 0)
            pid_1(lower, directory, go[0], report[1]);
        CHECK(write(report[1], &pid, sizeof pid));
        _exit(0);
    }
    close(go[0]), close(report[1]);

    add_pair(bridge, netns, number);
    CHECK(setns(netns, CLONE_NEWNET));
    furnish(htonl(0xAC120001 + number), htonl(0xAC122A01));
    CHECK(setns(home, CLONE_NEWNET));

    if (read(report[0], &pid, sizeof pid) != sizeof pid)
        exit(1);
    record(directory, "state");
    CHECK(write(go[1], "1", 1));
    char nothing;
    CHECK(read(report[0], &nothing, 1)); /* its end: the command is being executed */
    waitpid(outer, NULL, 0);
    record(directory, "state");

    clock_gettime(CLOCK_MONOTONIC, &ended);
    close(go[1]), close(report[0]), close(home), close(netns);
    *started = pid;
    return (ended.tv_sec - began.tv_sec) * 1e3 + (ended.tv_nsec - began.tv_nsec) / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: start LOWER SCRATCH ROUNDS\n");
        return 2;
    }
    unsigned bridge = add_bridge(htonl(0xAC122A01));
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    for (int number = 0; number < atoi(argv[3]); number++) {
        pid_t pid;
        printf("%.3f\n", start(bridge, argv[1], argv[2], number, &pid));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return 0;
}
