/* Requests of start.c to rtnetlink(7) and nf_tables: several messages in one system call. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(call)                                                            \
    do {                                                                       \
        if ((call) < 0) {                                                      \
            fprintf(stderr, "%s: %s\n", #call, strerror(errno));               \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

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

/* Send a request and read all replies; return the flags of the requested link. */
static unsigned ask(int protocol, int type, int flags, const void *body, size_t size,
                    const char *name) {
    char answer[8192];
    unsigned found = 0;
    int fd, done = 0;
    struct nlmsghdr *question = begin(type, flags, body, size);
    question->nlmsg_flags &= ~NLM_F_ACK;
    if (name)
        put(question, IFLA_IFNAME, name, strlen(name) + 1);
    CHECK(fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
    CHECK(send(fd, question, question->nlmsg_len, 0));
    while (!done) {
        ssize_t length = recv(fd, answer, sizeof answer, 0);
        CHECK(length);
        for (struct nlmsghdr *m = (void *)answer; NLMSG_OK(m, length); m = NLMSG_NEXT(m, length)) {
            if (m->nlmsg_type == RTM_NEWLINK)
                found = ((struct ifinfomsg *)NLMSG_DATA(m))->ifi_flags;
            done |= m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR ||
                    !(flags & NLM_F_DUMP);
        }
    }
    close(fd);
    asked = 0;
    return found;
}

static unsigned ask_link(const char *name) {
    struct ifinfomsg link = {0};
    return ask(NETLINK_ROUTE, RTM_GETLINK, 0, &link, sizeof link, name);
}

static void ask_tables(void) {
    struct nfgenmsg body = {0};
    ask(NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, NLM_F_DUMP, &body,
        sizeof body, NULL);
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
    link = (struct ifinfomsg){0}; /* a bridge port needs no link-local address */
    message = begin(RTM_SETLINK, 0, &link, sizeof link);
    put(message, IFLA_IFNAME, name, strlen(name) + 1);
    char none = 1;
    struct rtattr *families = put(message, IFLA_AF_SPEC | NLA_F_NESTED, NULL, 0);
    struct rtattr *ipv6 = put(message, AF_INET6 | NLA_F_NESTED, NULL, 0);
    put(message, 8 /* IFLA_INET6_ADDR_GEN_MODE */, &none, 1);
    close_nest(message, ipv6);
    close_nest(message, families);
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
