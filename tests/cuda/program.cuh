// SPDX-License-Identifier: MIT
#pragma once

// A program of tests with a main of its own. The runner without a GPU keeps shared memory in thread-local storage,
// where doctest must not have anything; its programs have one thread.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#define DOCTEST_THREAD_LOCAL
#include <doctest/doctest.h>
