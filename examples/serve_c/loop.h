/* A control loop that reads observations, writes actions and measures latencies. */
#ifndef LOOP_H
#define LOOP_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int loop_d, loop_a; /* Components of an observation and of an action. */
static double loop_rate;   /* Steps per second; 0 for as fast as it goes. */

static void loop_arguments(int argc, char** argv) {
  if (argc < 5 || (loop_d = atoi(argv[2])) < 1 || (loop_a = atoi(argv[3])) < 1) {
    fprintf(stderr, "usage: %s MODEL D A STEPS_PER_SECOND\n", argv[0]);
    exit(2);
  }
  loop_rate = atof(argv[4]);
}

static double loop_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int loop_compare(const void* one, const void* other) {
  double a = *(const double*)one, b = *(const double*)other;
  return (a > b) - (a < b);
}

static int loop_run(void (*act)(float*, float*)) {
  float* observation = calloc((size_t)loop_d, sizeof(float));
  float* action = calloc((size_t)loop_a, sizeof(float));
  size_t count = 0, room = 1024;
  double* seconds = malloc(room * sizeof(double));
  act(observation, action); /* The first call allocates. */
  double next = loop_now();
  while (fread(observation, sizeof(float), (size_t)loop_d, stdin) == (size_t)loop_d) {
    double started = loop_now();
    act(observation, action);
    if (count == room) seconds = realloc(seconds, (room *= 2) * sizeof(double));
    seconds[count++] = loop_now() - started;
    fwrite(action, sizeof(float), (size_t)loop_a, stdout);
    if (loop_rate > 0) {
      next += 1.0 / loop_rate;
      double rest = next - loop_now();
      if (rest > 0) {
        struct timespec pause = {(time_t)rest, (long)(1e9 * (rest - (double)(time_t)rest))};
        nanosleep(&pause, NULL);
      }
    }
  }
  if (count == 0) return 1;
  qsort(seconds, count, sizeof(double), loop_compare);
  fprintf(stderr, "%zu observations: median %.3f ms, 99.9 %% %.3f ms\n", count,
          1e3 * seconds[count / 2], 1e3 * seconds[(size_t)(0.999 * (double)(count - 1))]);
  return 0;
}

#endif
