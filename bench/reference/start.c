/*
 * The rival of bench.start: the system calls of a container's start on a bridge, in C.
 *
 * The program makes the calls of mydocker's library between the call and the running command:
 * a network namespace, a veth pair on a bridge with address and default route, the
 * other namespaces, an overlay, /proc, /sys, /dev with its devices, masked paths,
 * the capabilities of the default set, two forks and an exec. It also does what
 * mydocker's promises need. It replaces records atomically under locks, so that a kill at
 * any moment can be repaired. It checks other containers, the image, the bridge, the rules and
 * forwarding, which another process may have removed. It waits for the carrier and
 * announces the address. Only the policy is missing: it parses and decides nothing.
 *
 *     start LOWER SCRATCH ROUNDS
 *
 * prints one line per round: milliseconds, and milliseconds of processor time of all
 * processes except the container's command.
 *
 * Run the program in a separate network namespace, as bench/start.py does: it makes a bridge.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "netlink.h"

static const char *DEVICES[] = {"null", "zero", "full", "random", "urandom", "tty"};
static const char *HIDDEN[] = {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                               "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
                               "/proc/timer_list", "/proc/timer_stats",
                               "/sys/devices/virtual/powercap", "/sys/firmware"};
static const char *READ_ONLY[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                  "/proc/sysrq-trigger"};
static const int KEPT[] = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31};
/* The sources of the image: a change of any of them would require a new image. */
static const char *MADE_OF[] = {"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin",
                                "/lib", "/usr/lib", "/etc", "/usr", "/proc/self/exe"};
#define COUNT(list) (sizeof(list) / sizeof *(list))

/* --- files ---------------------------------------------------------------- */

static void look(const char *path) {
    char text[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    CHECK(read(fd, text, sizeof text));
    close(fd);
}

static void turn_off(const char *path) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd);
    CHECK(write(fd, "1", 1));
    close(fd);
}

static int lock(const char *directory) {
    char path[512];
    snprintf(path, sizeof path, "%s/lock", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd);
    CHECK(flock(fd, LOCK_EX));
    return fd;
}

static void unlock(int fd) {
    CHECK(flock(fd, LOCK_UN));
    close(fd);
}

static void announce(int voice, in_addr_t address) {
    char frame[42] = {0};
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = 2};
    memset(frame, 0xff, 6);
    frame[12] = 8, frame[13] = 6;
    memcpy(frame + 28, &address, 4), memcpy(frame + 38, &address, 4);
    CHECK(sendto(voice, frame, sizeof frame, 0, (void *)&to, sizeof to));
}

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

/* In place, because a bind mount of the file refers to its inode. */
static void rewrite(const char *directory, const char *name) {
    char path[512], text[256];
    memset(text, 'x', sizeof text);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    CHECK(fd);
    CHECK(write(fd, text, sizeof text));
    close(fd);
    CHECK(chmod(path, 0644));
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
    unsigned long long read_only[4] = {1 /* MOUNT_ATTR_RDONLY */};
    const char *names[] = {"hosts", "hostname", "resolv.conf"};
    const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    for (size_t i = 0; i < COUNT(DEVICES); i++) {
        snprintf(path, sizeof path, "/dev/%s", DEVICES[i]);
        CHECK(devices[i] = clone_mount(path));
        CHECK(syscall(SYS_mount_setattr, devices[i], "", 0x9000 /* empty path, recursive */,
                      &read_only, sizeof read_only));
    }
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        CHECK(files[i] = clone_mount(path));
    }
    look("/proc/self/uid_map");
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
    look("/proc/self/mountinfo");
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

static void pid_1(const char *lower, const char *directory, int go, int report, int voice) {
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
        _exit(127); /* closes `report`, as the exec does */
    }
    close(report), close(voice);
    while (wait(NULL) > 0)
        ;
    _exit(0);
}

/* Return the processor time of this process and its reaped children in milliseconds. */
static double own_time(void) {
    struct timespec own;
    struct rusage collected;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
    getrusage(RUSAGE_CHILDREN, &collected);
    return own.tv_sec * 1e3 + own.tv_nsec / 1e6 +
           (collected.ru_utime.tv_sec + collected.ru_stime.tv_sec) * 1e3 +
           (collected.ru_utime.tv_usec + collected.ru_stime.tv_usec) / 1e3;
}

static double time_of(pid_t pid) {
    char path[64];
    long long nanoseconds = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%lld", &nanoseconds) != 1)
        nanoseconds = 0;
    if (file)
        fclose(file);
    return nanoseconds / 1e6;
}

static double start(unsigned bridge, const char *lower, const char *scratch, int number,
                    pid_t *started) {
    char directory[256], path[512];
    struct timespec began, ended;
    snprintf(directory, sizeof directory, "%s/%d", scratch, number);
    clock_gettime(CLOCK_MONOTONIC, &began);

    /* the state of other containers, and the sources of the image */
    snprintf(path, sizeof path, "%s/config", scratch);
    struct stat status;
    stat(path, &status), look("/proc/self/stat"), look(path), look(path), look(path);
    for (size_t i = 0; i < COUNT(MADE_OF); i++)
        stat(MADE_OF[i], &status);
    int all = lock(scratch);
    snprintf(path, sizeof path, "%s/name%d", scratch, number);
    CHECK(symlink(directory, path));
    CHECK(mkdir(directory, 0700));
    int own = lock(directory);
    record(directory, "config"), record(directory, "state");
    unlock(all);
    for (const char **name = (const char *[]){"upper", "work", "rootfs", NULL}; *name; name++) {
        snprintf(path, sizeof path, "%s/%s", directory, *name);
        CHECK(mkdir(path, 0755));
    }
    look("/etc/resolv.conf");
    rewrite(directory, "hosts"), rewrite(directory, "hostname"), rewrite(directory, "resolv.conf");

    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), netns;
    CHECK(home);
    CHECK(unshare(CLONE_NEWNET));
    CHECK(netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    int voice = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    CHECK(voice);
    CHECK(setns(home, CLONE_NEWNET));

    int go[2], report[2];
    CHECK(pipe2(go, O_CLOEXEC));
    CHECK(pipe2(report, O_CLOEXEC));
    for (const char **name = (const char *[]){"log", "exit", NULL}; *name; name++) {
        snprintf(path, sizeof path, "%s/%s", directory, *name);
        CHECK(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)); /* pid 1 keeps them */
    }
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
            pid_1(lower, directory, go[0], report[1], voice);
        CHECK(write(report[1], &pid, sizeof pid));
        _exit(0);
    }
    close(go[0]), close(report[1]);

    in_addr_t address = htonl(0xAC120001 + number);
    char near[IFNAMSIZ];
    snprintf(near, sizeof near, "ref%d", number);
    ask_link("refbr0"), ask_tables(), look("/proc/sys/net/ipv4/ip_forward");
    all = lock(scratch);
    snprintf(path, sizeof path, "%s/leases", scratch);
    look(path), record(scratch, "leases");
    unlock(all);
    add_pair(bridge, netns, number);
    CHECK(setns(netns, CLONE_NEWNET));
    turn_off("/proc/sys/net/ipv6/conf/eth0/disable_ipv6");
    ask_link("eth0");
    furnish(address, htonl(0xAC122A01));
    CHECK(setns(home, CLONE_NEWNET));
    while (!(ask_link(near) & IFF_RUNNING))
        sched_yield();
    announce(voice, address);
    rewrite(directory, "hosts");

    if (read(report[0], &pid, sizeof pid) != sizeof pid)
        exit(1);
    record(directory, "state");
    CHECK(write(go[1], "1", 1));
    char nothing;
    CHECK(read(report[0], &nothing, 1)); /* end of file: the command executes */
    waitpid(outer, NULL, 0);
    record(directory, "state");

    clock_gettime(CLOCK_MONOTONIC, &ended);
    close(go[1]), close(report[0]), close(home), close(netns), close(voice), unlock(own);
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
        double before = own_time(), taken = start(bridge, argv[1], argv[2], number, &pid);
        printf("%.3f %.3f\n", taken, own_time() - before + time_of(pid));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return 0;
}
