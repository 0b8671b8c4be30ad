/* Runs an exported SavedModel in a control loop through TensorFlow's C API.
 *
 *   TF=$(python -c "import tensorflow as tf; print(tf.sysconfig.get_lib())")
 *   gcc -O2 -I $TF/include saved_model_client.c $TF/libtensorflow_cc.so.2 \
 *     $TF/libtensorflow_framework.so.2 -Wl,-rpath,$TF -o saved_model_client
 *   ./saved_model_client exported/pen 45 24 1000 < observations.f32 > actions.f32
 *
 * Calls the signature action_or_prior. Reads observations (float32, D numbers each) from standard
 * input until it ends, and writes actions (float32, A numbers each); the latencies go to standard
 * error. Names of tensors are those that `saved_model_cli show --all` prints, and are the fifth to
 * seventh argument if they differ from the defaults below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorflow/c/c_api.h>

#include "loop.h"

static TF_Session* session;
static TF_Status* status;
static TF_Output inputs[2], outputs[1];
static float threshold = 0.99f;

static void check(void) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "error: %s\n", TF_Message(status));
  exit(1);
}

/* "name:index" of a tensor. */
static TF_Output find(TF_Graph* graph, const char* tensor) {
  char name[256];
  const char* colon = strrchr(tensor, ':');
  size_t length = colon ? (size_t)(colon - tensor) : strlen(tensor);
  if (length >= sizeof name) exit(1);
  memcpy(name, tensor, length);
  name[length] = '\0';
  TF_Output output = {TF_GraphOperationByName(graph, name), colon ? atoi(colon + 1) : 0};
  if (output.oper != NULL) return output;
  fprintf(stderr, "error: the graph has no tensor %s\n", tensor);
  exit(1);
}

static void act(float* observation, float* action) {
  const int64_t shape[] = {1, loop_d};
  size_t bytes = (size_t)loop_d * sizeof(float);
  TF_Tensor* values[] = {TF_AllocateTensor(TF_FLOAT, shape, 2, bytes),
                         TF_AllocateTensor(TF_FLOAT, NULL, 0, sizeof(float))};
  memcpy(TF_TensorData(values[0]), observation, bytes);
  memcpy(TF_TensorData(values[1]), &threshold, sizeof threshold);
  TF_Tensor* result = NULL;
  TF_SessionRun(session, NULL, inputs, values, 2, outputs, &result, 1, NULL, 0, NULL, status);
  check();
  memcpy(action, TF_TensorData(result), (size_t)loop_a * sizeof(float));
  TF_DeleteTensor(result);
  TF_DeleteTensor(values[0]);
  TF_DeleteTensor(values[1]);
}

int main(int argc, char** argv) {
  loop_arguments(argc, argv);
  status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  /* A ConfigProto with intra_op_parallelism_threads and inter_op_parallelism_threads of 1. */
  const unsigned char one_thread[] = {0x10, 0x01, 0x28, 0x01};
  TF_SetConfig(options, one_thread, sizeof one_thread, status);
  check();
  const char* tags[] = {"serve"};
  session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check();
  inputs[0] = find(graph, argc > 5 ? argv[5] : "action_or_prior_observation:0");
  inputs[1] = find(graph, argc > 6 ? argv[6] : "action_or_prior_threshold:0");
  outputs[0] = find(graph, argc > 7 ? argv[7] : "StatefulPartitionedCall:0");
  return loop_run(act);
}
