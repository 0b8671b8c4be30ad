/* Runs an exported policy.onnx in a control loop through ONNX Runtime's C API.
 *
 *   gcc -O2 -I ORT/include onnx_client.c -L ORT/lib -lonnxruntime -o onnx_client
 *   ./onnx_client exported/pen_onnx/policy.onnx 45 24 1000 < observations.f32 > actions.f32
 *
 * Reads observations (float32, D numbers each) from standard input until it ends, and writes actions
 * (float32, A numbers each); the latencies go to standard error. */
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "loop.h"

static const OrtApi* ort;

static void check(OrtStatus* status) {
  if (status == NULL) return;
  fprintf(stderr, "error: %s\n", ort->GetErrorMessage(status));
  exit(1);
}

static OrtMemoryInfo* memory;

static OrtValue* tensor(float* data, const int64_t* shape, size_t rank) {
  OrtValue* value = NULL;
  size_t size = 1;
  for (size_t i = 0; i < rank; ++i) size *= (size_t)shape[i];
  check(ort->CreateTensorWithDataAsOrtValue(memory, data, size * sizeof(float), shape, rank,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
  return value;
}

static OrtSession* session;
static float* noise;
static float threshold = 0.99f;

static void act(float* observation, float* action) {
  const int64_t of_observation[] = {1, loop_d}, of_noise[] = {1, loop_a}, one[] = {1};
  const char* names[] = {"observation", "noise", "threshold"};
  const char* outputs[] = {"action"};
  OrtValue* inputs[] = {tensor(observation, of_observation, 2), tensor(noise, of_noise, 2),
                        tensor(&threshold, one, 1)};
  OrtValue* output = NULL;
  check(ort->Run(session, NULL, names, (const OrtValue* const*)inputs, 3, outputs, 1, &output));
  float* found;
  check(ort->GetTensorMutableData(output, (void**)&found));
  for (int i = 0; i < loop_a; ++i) action[i] = found[i];
  ort->ReleaseValue(output);
  for (int i = 0; i < 3; ++i) ort->ReleaseValue(inputs[i]);
}

int main(int argc, char** argv) {
  loop_arguments(argc, argv);
  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  OrtEnv* environment;
  OrtSessionOptions* options;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "policy", &environment));
  check(ort->CreateSessionOptions(&options));
  check(ort->SetIntraOpNumThreads(options, 1));
  check(ort->CreateSession(environment, argv[1], options, &session));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  noise = calloc((size_t)loop_a, sizeof(float));
  return loop_run(act);
}
