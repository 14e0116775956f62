/* An HTTP/1.1 load generator that keeps to its schedule.
 *
 *   load --port P --path /x --rate R --seconds S --connections C --body FILE [--body FILE …]
 *        [--host 127.0.0.1] [--type application/json] [--timeout-ms 10000] [--drain-ms 2000]
 *
 * Theory. With --rate R > 0 the loop is open: request k is meant to leave at start + k/R, whatever the server
 * does. A request whose time has come while every connection is busy waits, and its latency counts from the
 * time it was meant to leave; so a stall of the server is seen by every request that was due during it, not
 * by one per connection (the "coordinated omission" of closed-loop generators). With --rate 0 the loop is
 * closed: every connection sends its next request when it has its answer, and latency counts from sending.
 *
 * One thread, epoll, keep-alive connections without pipelining, taken in turn, so that none idles into the
 * server's keep-alive limit. Bodies are sent in rotation. SIGINT and SIGTERM end the sending early.
 *
 * How a request ends: ok (2xx), refused (429, 503), client_error (other 4xx, and 1xx/3xx, which nobody asked
 * for), server_error (other 5xx), reset (the connection ended or could not be made before a whole answer),
 * timeout (no whole answer in --timeout-ms after sending), unsent (due, and still not sent at the end).
 * The histogram has ok, and those that were never answered (timeout, unsent, reset) with the time after which
 * that was known, a lower bound. Refusals and errors are counted, and their longest latency is kept.
 *
 * It prints one JSON object: counts, the rates, percentiles, its own CPU time, by how much it was itself too
 * late at worst with a connection free (a starved generator measures itself), and the histogram as pairs of
 * [upper bound in µs, count], log-linear with 128 steps an octave (an error below 0.8 %).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
  CONNECTIONS_MAX = 4096,
  BODIES_MAX = 64,
  ANSWER_BYTES_MAX = 16 << 20,
  HEAD_BYTES_MAX = 64 << 10,
  EVENTS_MAX = 256,
  RECONNECT_MS = 10,
  STEP_BITS = 7,
  STEPS = 1 << STEP_BITS,
  BUCKETS = (40 - STEP_BITS) * STEPS,
};

enum outcome { OK, REFUSED, CLIENT_ERROR, SERVER_ERROR, RESET, TIMEOUT, UNSENT, OUTCOMES };
static const char *const OUTCOME_NAMES[OUTCOMES] = {
    "ok", "refused", "client_error", "server_error", "reset", "timeout", "unsent"};

enum state { DOWN, CONNECTING, FREE, BUSY };

struct connection {
  enum state state;
  int fd;
  int next;         /* in the queue of free ones, or -1 */
  bool writable;    /* EPOLLOUT is asked for */
  const char *out;  /* what is left to send */
  size_t out_left;
  int64_t intended_ns, sent_ns, retry_ns;
  char *in;
  size_t in_len, in_cap;
};

static struct {
  const char *host, *path, *type;
  int port, connections;
  double rate, seconds;
  int64_t timeout_ns, drain_ns;
} option = {.host = "127.0.0.1", .path = "/", .type = "application/json", .connections = 32, .seconds = 5,
            .timeout_ns = 10000LL * 1000000, .drain_ns = 2000LL * 1000000};

static struct connection pool[CONNECTIONS_MAX];
static int free_head = -1, free_tail = -1, down_count;
static char *requests[BODIES_MAX];
static size_t request_bytes[BODIES_MAX];
static int bodies, epoll_fd;
static struct sockaddr_in address;
static volatile sig_atomic_t stopped;

static int64_t began_ns, ended_ns, next_request; /* next_request: how many have left, or were given up */
static bool sending = true;
static uint64_t counts[OUTCOMES], histogram[BUCKETS], connects;
static int64_t longest_us, longest_error_us, late_ns; /* late: our own, with a connection free */
static uint64_t answer_bytes;

static void fail(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(2);
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* --- figures --- */

static int bucket_of(uint64_t us) {
  if (us < STEPS) return (int)us;
  int octave = 63 - __builtin_clzll(us) - STEP_BITS; /* 0 for [STEPS, 2·STEPS) */
  int bucket = (octave + 1) * STEPS + (int)((us >> octave) - STEPS);
  return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static uint64_t bucket_top(int bucket) {
  if (bucket < STEPS) return (uint64_t)bucket;
  int octave = bucket / STEPS - 1;
  return (((uint64_t)(bucket % STEPS) + STEPS + 1) << octave) - 1;
}

static void record(enum outcome outcome, int64_t latency_ns) {
  int64_t us = latency_ns / 1000;
  counts[outcome]++;
  if (outcome == REFUSED || outcome == CLIENT_ERROR || outcome == SERVER_ERROR) {
    if (us > longest_error_us) longest_error_us = us;
    return;
  }
  histogram[bucket_of((uint64_t)(us < 0 ? 0 : us))]++;
  if (us > longest_us) longest_us = us;
}

static double percentile_ms(double share) {
  uint64_t total = 0, seen = 0;
  for (int i = 0; i < BUCKETS; i++) total += histogram[i];
  if (!total) return -1;
  uint64_t wanted = (uint64_t)(share * (double)total);
  if ((double)wanted < share * (double)total) wanted++;
  if (wanted < 1) wanted = 1;
  for (int i = 0; i < BUCKETS; i++)
    if ((seen += histogram[i]) >= wanted) {
      uint64_t top = bucket_top(i);
      return (double)(top > (uint64_t)longest_us ? (uint64_t)longest_us : top) / 1000;
    }
  return (double)longest_us / 1000;
}

/* --- connections --- */

static void watch(struct connection *c, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll_fd, operation, c->fd, &event)) fail("epoll_ctl");
  c->writable = events & EPOLLOUT;
}

static void push_free(struct connection *c) {
  c->state = FREE;
  c->next = -1;
  if (free_tail >= 0) pool[free_tail].next = (int)(c - pool);
  else free_head = (int)(c - pool);
  free_tail = (int)(c - pool);
}

static struct connection *pop_free(void) {
  if (free_head < 0) return NULL;
  struct connection *c = &pool[free_head];
  free_head = c->next;
  if (free_head < 0) free_tail = -1;
  return c;
}

static void leave_free(struct connection *gone) {
  int last = -1;
  for (int i = free_head; i >= 0; last = i, i = pool[i].next)
    if (&pool[i] == gone) {
      if (last >= 0) pool[last].next = gone->next;
      else free_head = gone->next;
      if (free_tail == i) free_tail = last;
      return;
    }
}

static int64_t due_ns(int64_t k) { return began_ns + (int64_t)((double)k * 1e9 / option.rate); }

static bool is_due(int64_t at_ns) {
  return sending && (option.rate <= 0 || due_ns(next_request) <= at_ns);
}

static void mark_down(struct connection *c, int64_t at_ns, int64_t wait_ns) {
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
  c->state = DOWN;
  c->retry_ns = at_ns + wait_ns;
  down_count++;
}

/* A connection that could not be made is a lost request if one was due: a client would have seen it. */
static void connect_failed(struct connection *c, int64_t at_ns) {
  if (is_due(at_ns)) {
    record(RESET, option.rate > 0 ? at_ns - due_ns(next_request) : 0);
    next_request++;
  }
  mark_down(c, at_ns, RECONNECT_MS * 1000000LL);
}

static void open_connection(struct connection *c, int64_t at_ns) {
  int one = 1;
  down_count--;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) fail("socket");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  c->in_len = 0;
  connects++;
  if (connect(c->fd, (struct sockaddr *)&address, sizeof address) == 0) {
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    push_free(c);
  } else if (errno == EINPROGRESS) {
    c->state = CONNECTING;
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
  } else {
    connect_failed(c, at_ns);
  }
}

static void finish(struct connection *c, enum outcome outcome, int64_t at_ns, bool keep) {
  record(outcome, at_ns - c->intended_ns);
  if (!keep) {
    mark_down(c, at_ns, 0);
    return;
  }
  c->in_len = 0;
  if (c->writable) watch(c, EPOLL_CTL_MOD, EPOLLIN);
  push_free(c);
}

static void flush_out(struct connection *c, int64_t at_ns) {
  while (c->out_left) {
    ssize_t sent = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
      if (!c->writable) watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
      return;
    }
    if (sent < 0) {
      finish(c, RESET, at_ns, false);
      return;
    }
    c->out += sent;
    c->out_left -= (size_t)sent;
  }
  if (c->writable) watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void start_request(struct connection *c, int64_t at_ns) {
  int body = (int)(next_request % bodies);
  c->intended_ns = option.rate > 0 ? due_ns(next_request) : at_ns;
  c->sent_ns = at_ns;
  next_request++;
  c->state = BUSY;
  c->out = requests[body];
  c->out_left = request_bytes[body];
  flush_out(c, at_ns);
}

static void send_due(int64_t at_ns) {
  while (is_due(at_ns)) {
    struct connection *c = pop_free();
    if (!c) return;
    start_request(c, at_ns);
  }
}

/* --- answers --- */

static const char *header(const char *head, const char *end, const char *name, size_t *length) {
  size_t n = strlen(name);
  for (const char *line = memchr(head, '\n', (size_t)(end - head)); line && ++line < end;
       line = memchr(line, '\n', (size_t)(end - line)))
    if ((size_t)(end - line) > n && !strncasecmp(line, name, n) && line[n] == ':') {
      const char *value = line + n + 1, *stop = memchr(value, '\r', (size_t)(end - value));
      while (*value == ' ' || *value == '\t') value++;
      *length = (size_t)((stop ? stop : end) - value);
      return value;
    }
  return NULL;
}

/* Bytes of a chunked body from `body`; 0 when it is not whole yet, -1 when it is broken. */
static ssize_t chunked_length(const char *body, const char *end) {
  const char *at = body;
  for (;;) {
    const char *line = memchr(at, '\n', (size_t)(end - at));
    if (!line) return 0;
    char *stop;
    unsigned long size = strtoul(at, &stop, 16);
    if (stop == at || size > ANSWER_BYTES_MAX) return -1;
    at = line + 1;
    if (size == 0) return end - at >= 2 ? at + 2 - body : 0; /* no trailers are asked for */
    if ((size_t)(end - at) < size + 2) return 0;
    at += size + 2;
  }
}

static enum outcome outcome_of(int status) {
  if (status >= 200 && status < 300) return OK;
  if (status == 429 || status == 503) return REFUSED;
  return status >= 500 ? SERVER_ERROR : CLIENT_ERROR;
}

/* Reads the answer if it is whole. -1: broken; 0: not whole yet; 1: whole, keep; 2: whole, closing. */
static int parse_answer(struct connection *c, enum outcome *outcome) {
  const char *head_end = memmem(c->in, c->in_len, "\r\n\r\n", 4), *end = c->in + c->in_len;
  if (!head_end) return c->in_len > HEAD_BYTES_MAX ? -1 : 0;
  if (c->in_len < 12 || memcmp(c->in, "HTTP/1.", 7)) return -1;
  *outcome = outcome_of(atoi(c->in + 9));
  const char *body = head_end + 4;
  size_t length;
  ssize_t whole;
  const char *value = header(c->in, head_end + 2, "transfer-encoding", &length);
  if (value && length >= 7 && !strncasecmp(value + length - 7, "chunked", 7)) {
    whole = chunked_length(body, end);
    if (whole <= 0) return (int)whole;
  } else if ((value = header(c->in, head_end + 2, "content-length", &length))) {
    whole = (ssize_t)strtoul(value, NULL, 10);
    if (whole > ANSWER_BYTES_MAX) return -1;
    if (end - body < whole) return 0;
  } else {
    return -1;
  }
  if (end - body != whole) return -1; /* nobody asked for more */
  answer_bytes += (uint64_t)whole;
  value = header(c->in, head_end + 2, "connection", &length);
  return value && length >= 5 && !strncasecmp(value, "close", 5) ? 2 : 1;
}

static void lost(struct connection *c, int64_t at_ns) {
  if (c->state == BUSY) {
    finish(c, RESET, at_ns, false);
  } else {
    if (c->state == FREE) leave_free(c); /* the server may close a connection that idles */
    mark_down(c, at_ns, 0);
  }
}

static bool receive(struct connection *c) {
  for (;;) {
    if (c->in_cap - c->in_len < 4096) {
      c->in_cap = c->in_cap ? c->in_cap * 2 : 16384;
      if (c->in_cap > 2 * (size_t)ANSWER_BYTES_MAX || !(c->in = realloc(c->in, c->in_cap))) fail("answer");
    }
    size_t room = c->in_cap - c->in_len;
    ssize_t got = recv(c->fd, c->in + c->in_len, room, 0);
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return false;
    c->in_len += (size_t)got;
    if ((size_t)got < room) return true;
  }
}

static void readable(struct connection *c, int64_t at_ns) {
  enum outcome outcome = OK;
  bool open = receive(c);
  if (c->state != BUSY || c->in_len == 0) {
    if (!open || c->in_len) lost(c, at_ns);
    return;
  }
  int whole = parse_answer(c, &outcome);
  if (whole < 0 || (whole == 0 && !open)) lost(c, at_ns);
  else if (whole > 0) finish(c, outcome, at_ns, whole == 1 && open && c->out_left == 0);
}

static void connected(struct connection *c, int64_t at_ns) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) {
    connect_failed(c, at_ns);
    return;
  }
  watch(c, EPOLL_CTL_MOD, EPOLLIN);
  push_free(c);
}

/* --- the loop --- */

static void look_at_times(int64_t at_ns) {
  for (int i = 0; i < option.connections; i++) {
    struct connection *c = &pool[i];
    if (c->state == BUSY && at_ns - c->sent_ns > option.timeout_ns) finish(c, TIMEOUT, at_ns, false);
    if (c->state == DOWN && sending && c->retry_ns <= at_ns) open_connection(c, at_ns);
  }
}

static bool any_busy(void) {
  for (int i = 0; i < option.connections; i++)
    if (pool[i].state == BUSY) return true;
  return false;
}

static int wait_events(struct epoll_event *events, int64_t wait_ns) {
  static bool coarse; /* a kernel older than 5.11 */
  if (wait_ns < 0) wait_ns = 0;
  if (!coarse) {
    struct timespec wait = {.tv_sec = wait_ns / 1000000000, .tv_nsec = wait_ns % 1000000000};
    int n = (int)syscall(SYS_epoll_pwait2, epoll_fd, events, EVENTS_MAX, &wait, NULL, 0);
    if (n >= 0 || errno != ENOSYS) return n;
    coarse = true;
  }
  return epoll_wait(epoll_fd, events, EVENTS_MAX, (int)(wait_ns / 1000000));
}

static int64_t wait_until(int64_t at_ns, int64_t next_look_ns) {
  int64_t until = next_look_ns;
  if (sending && option.rate > 0 && free_head >= 0 && due_ns(next_request) < until)
    until = due_ns(next_request);
  return until - at_ns;
}

static void run(void) {
  struct epoll_event events[EVENTS_MAX];
  int64_t next_look = 0, at = now_ns(), stop_ns, give_up_ns = 0;
  began_ns = at;
  stop_ns = began_ns + (int64_t)(option.seconds * 1e9);
  for (int i = 0; i < option.connections; i++) open_connection(&pool[i], at);
  for (;;) {
    at = now_ns();
    if (sending && (stopped || at >= stop_ns)) {
      send_due(stopped ? at : stop_ns - 1);
      sending = false;
      ended_ns = stopped ? at : stop_ns;
      give_up_ns = at + option.drain_ns;
    }
    if (at >= next_look || (down_count && sending)) {
      look_at_times(at);
      next_look = at + 5000000;
    }
    send_due(at);
    if (!sending && (!any_busy() || at >= give_up_ns)) return;
    int64_t until = next_look < stop_ns || !sending ? next_look : stop_ns;
    bool ready = sending && option.rate > 0 && free_head >= 0;
    int n = wait_events(events, wait_until(at, until));
    if (n < 0 && errno != EINTR) fail("epoll");
    at = now_ns();
    if (ready && at < stop_ns && at - due_ns(next_request) > late_ns) late_ns = at - due_ns(next_request);
    for (int i = 0; i < n; i++) {
      struct connection *c = events[i].data.ptr;
      if (c->state == CONNECTING) connected(c, at);
      else if (c->state == DOWN) continue;
      else {
        if (events[i].events & EPOLLOUT) flush_out(c, at);
        if (c->state != DOWN && (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))) readable(c, at);
      }
    }
  }
}

/* What was still under way or due when sending ended and the drain was over. */
static void close_books(void) {
  int64_t at = now_ns();
  for (int i = 0; i < option.connections; i++)
    if (pool[i].state == BUSY) record(TIMEOUT, at - pool[i].intended_ns);
  if (option.rate <= 0) return;
  for (; due_ns(next_request) < ended_ns; next_request++) record(UNSENT, ended_ns - due_ns(next_request));
}

static void print_results(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  double seconds = (double)(ended_ns - began_ns) / 1e9;
  double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  uint64_t total = 0;
  for (int i = 0; i < OUTCOMES; i++) total += counts[i];
  printf("{\"requests\":%llu,\"seconds\":%.6f,\"rate\":%.3f,\"achieved_per_s\":%.3f,\"outcomes\":{",
         (unsigned long long)total, seconds, option.rate, (double)counts[OK] / seconds);
  for (int i = 0; i < OUTCOMES; i++)
    printf("%s\"%s\":%llu", i ? "," : "", OUTCOME_NAMES[i], (unsigned long long)counts[i]);
  printf("},\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,"
         "\"max_error_ms\":%.3f,\"own_late_ms_max\":%.3f,\"connects\":%llu,\"answer_bytes\":%llu,\"cpu_seconds\":%.4f,\"histogram_us\":[",
         percentile_ms(.5), percentile_ms(.9), percentile_ms(.99), percentile_ms(.999),
         (double)longest_us / 1000, (double)longest_error_us / 1000, (double)late_ns / 1e6,
         (unsigned long long)connects,
         (unsigned long long)answer_bytes, cpu);
  for (int i = 0, first = 1; i < BUCKETS; i++)
    if (histogram[i]) {
      printf("%s[%llu,%llu]", first ? "" : ",", (unsigned long long)bucket_top(i),
             (unsigned long long)histogram[i]);
      first = 0;
    }
  puts("]}");
}

/* --- the command line --- */

static void add_body(const char *name) {
  if (bodies == BODIES_MAX) { errno = E2BIG; fail("bodies"); }
  FILE *file = fopen(name, "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail(name);
  long size = ftell(file);
  rewind(file);
  char *body = malloc((size_t)size + 1);
  if (!body || fread(body, 1, (size_t)size, file) != (size_t)size) fail(name);
  fclose(file);
  char head[1024];
  int n = snprintf(head, sizeof head,
                   "POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: %s\r\nContent-Length: %ld\r\n\r\n",
                   option.path, option.host, option.port, option.type, size);
  if (n < 0 || n >= (int)sizeof head) { errno = E2BIG; fail("path"); }
  char *request = malloc((size_t)n + (size_t)size);
  if (!request) fail("memory");
  memcpy(request, head, (size_t)n);
  memcpy(request + n, body, (size_t)size);
  free(body);
  requests[bodies] = request;
  request_bytes[bodies++] = (size_t)(n + size);
}

static void on_signal(int number) { (void)number; stopped = 1; }

int main(int argc, char **argv) {
  static const struct option names[] = {
      {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"path", 1, 0, 'P'}, {"rate", 1, 0, 'r'},
      {"seconds", 1, 0, 's'}, {"connections", 1, 0, 'c'}, {"body", 1, 0, 'b'}, {"type", 1, 0, 't'},
      {"timeout-ms", 1, 0, 'T'}, {"drain-ms", 1, 0, 'D'}, {0, 0, 0, 0}};
  const char *files[BODIES_MAX];
  int file_count = 0, letter;
  while ((letter = getopt_long(argc, argv, "", names, NULL)) != -1) switch (letter) {
      case 'h': option.host = optarg; break;
      case 'p': option.port = atoi(optarg); break;
      case 'P': option.path = optarg; break;
      case 'r': option.rate = atof(optarg); break;
      case 's': option.seconds = atof(optarg); break;
      case 'c': option.connections = atoi(optarg); break;
      case 'b': if (file_count < BODIES_MAX) files[file_count++] = optarg; break;
      case 't': option.type = optarg; break;
      case 'T': option.timeout_ns = atoll(optarg) * 1000000; break;
      case 'D': option.drain_ns = atoll(optarg) * 1000000; break;
      default: return 2;
    }
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)option.port);
  if (option.port < 1 || option.port > 65535 || option.connections < 1 ||
      option.connections > CONNECTIONS_MAX || file_count == 0 || option.rate < 0 ||
      inet_pton(AF_INET, option.host, &address.sin_addr) != 1) {
    fputs("load: needs --port, --body, 1 to 4096 --connections, an IPv4 --host; see the head of load.c\n", stderr);
    return 2;
  }
  for (int i = 0; i < file_count; i++) add_body(files[i]);
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0); /* nobody would read the report */
  prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0); /* wake on time: the default slack is 50 µs */
  if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) fail("epoll");
  for (int i = 0; i < option.connections; i++) pool[i].state = DOWN, pool[i].fd = -1;
  down_count = option.connections;
  run();
  close_books();
  print_results();
  return 0;
}
