/* A driver library with the entry points that adaptbench's NVML meter uses, on boards and a clock that the test owns.
 *
 * Every query takes `step_s` of fake time, so that waiting for the counter's next edge makes progress without sleeping.
 * The state is in this library, or in the file named by FAKE_NVML_STATE, so that two processes can share it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
#define BOARDS 4
#define PIDS 4

typedef struct {
    char uuid[96];
    char mig_uuid[96];
    double watts;
    double joules;         /* truth */
    uint64_t published_mj; /* what the counter shows: the truth at the last tick, plus an offset */
    int64_t offset_mj;
    int32_t counter_error, power_error, instant_error, lost, frozen, mig;
    int32_t temperature_c, sm_mhz;
    uint64_t reasons;
    uint32_t n_pids, pids[PIDS];
    double power_scale; /* what the power sensor makes of the truth */
    double limit_w;     /* 0: the driver knows none */
} board_t;

typedef struct {
    double now_s, step_s, tick_s;
    int32_t init_error, n_boards, real_time, inits;
    board_t board[BOARDS];
} state_t;

static state_t own;
static state_t *S = &own;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    if (!path) return;
    int fd = open(path, O_RDWR);
    if (fd < 0) return;
    void *shared = mmap(NULL, sizeof(state_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED) S = shared;
}

state_t *fake_state(void) { return S; }
uint64_t fake_state_size(void) { return sizeof(state_t); }

static uint64_t ticks_at(double when) { return (uint64_t)(when / S->tick_s + 1e-6); }

/* Let time pass; the counters publish at each multiple of the tick. */
void fake_advance(double seconds) {
    double end = S->now_s + seconds;
    while (S->now_s < end) {
        uint64_t ticks = ticks_at(S->now_s);
        double next = (ticks + 1) * S->tick_s;
        double stop = next < end ? next : end;
        for (int i = 0; i < BOARDS; i++) S->board[i].joules += S->board[i].watts * (stop - S->now_s);
        S->now_s = stop;
        if (ticks_at(stop) > ticks)
            for (int i = 0; i < BOARDS; i++)
                if (!S->board[i].frozen)
                    S->board[i].published_mj = (uint64_t)(S->board[i].joules * 1000 + 0.5) + S->board[i].offset_mj;
    }
}

static void query(void) {
    if (!S->real_time) {
        fake_advance(S->step_s);
        return;
    }
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double now = t.tv_sec + t.tv_nsec * 1e-9;
    if (S->now_s == 0) S->now_s = now;
    if (now > S->now_s) fake_advance(now - S->now_s);
}

static board_t *board_of(void *handle) {
    query();
    return &S->board[((intptr_t)handle & 0xff) - 1];
}

#define BOARD(handle)                \
    board_t *b = board_of(handle);   \
    if (b->lost) return GPU_IS_LOST;

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (S->init_error == 0) S->inits++;
    return S->init_error;
}
int nvmlShutdown(void) {
    S->inits--;
    return SUCCESS;
}
const char *nvmlErrorString(int code) {
    (void)code;
    return "fake error";
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    strncpy(text, "999.01", size);
    return SUCCESS;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = S->n_boards;
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index >= (unsigned)S->n_boards) return INVALID_ARGUMENT;
    if (S->board[index].lost) return GPU_IS_LOST;
    *handle = (void *)(intptr_t)(index + 1);
    return SUCCESS;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    BOARD(handle);
    int instance = ((intptr_t)handle & 0x100) != 0;
    strncpy(text, instance ? b->mig_uuid : b->uuid, size);
    return SUCCESS;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    BOARD(handle);
    strncpy(text, "Fake Board", size);
    return SUCCESS;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    BOARD(handle);
    if (b->mig < 0) return NOT_SUPPORTED;
    *current = *pending = b->mig;
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    BOARD(handle);
    *count = 7;
    return SUCCESS;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **instance) {
    BOARD(handle);
    if (index > 0) return NOT_FOUND;
    *instance = (void *)((intptr_t)handle | 0x100);
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    BOARD(handle);
    if (b->counter_error) return b->counter_error;
    *millijoules = b->published_mj;
    return SUCCESS;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    BOARD(handle);
    if (b->power_error) return b->power_error;
    *milliwatts = (unsigned)(b->watts * b->power_scale * 1000 + 0.5);
    return SUCCESS;
}

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency;
    uint32_t type, result;
    union { uint32_t u; uint64_t ull; } value;
} field_t;

int nvmlDeviceGetFieldValues(void *handle, int count, field_t *values) {
    BOARD(handle);
    for (int i = 0; i < count; i++) {
        values[i].result = b->instant_error ? b->instant_error : b->power_error;
        values[i].value.u = (uint32_t)(b->watts * b->power_scale * 1000 + 0.5);
    }
    return SUCCESS;
}
typedef struct { uint32_t version, sensor; int32_t temperature; } temperature_t;
int nvmlDeviceGetTemperatureV(void *handle, temperature_t *temperature) {
    BOARD(handle);
    temperature->temperature = b->temperature_c;
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
    BOARD(handle);
    *reasons = b->reasons;
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(void *handle, unsigned type, unsigned *mhz) {
    BOARD(handle);
    (void)type;
    *mhz = b->sm_mhz;
    return SUCCESS;
}
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) {
    BOARD(handle);
    if (b->limit_w == 0) return NOT_SUPPORTED;
    *milliwatts = (unsigned)(b->limit_w * 1000);
    return SUCCESS;
}

typedef struct { uint32_t pid; uint64_t memory; uint32_t gpu_instance, compute_instance; } process_t;
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *list) {
    BOARD(handle);
    if (b->n_pids > *count) {
        *count = b->n_pids;
        return INSUFFICIENT_SIZE;
    }
    for (unsigned i = 0; list && i < b->n_pids; i++) list[i].pid = b->pids[i];
    *count = b->n_pids;
    return SUCCESS;
}
/* nvmlDeviceGetPersistenceMode is left out on purpose: an old driver lacks functions, too. */
