// SPDX-License-Identifier: MIT
#include <hmoe/io/name_list.hpp>

#include <doctest/doctest.h>

#include <string>

TEST_CASE("names for a message") {
  hmoe::io::name_list names;
  CHECK(names.text("missing").empty());
  names.add("a");
  CHECK(names.text("missing") == "; 1 tensor is missing: \"a\"");
  names.add("b");
  CHECK(names.text("missing") == "; 2 tensors are missing: \"a\", \"b\"");
  for (int i = 0; i < 10; ++i)
    names.add(std::to_string(i));
  CHECK(names.size() == 12);
  CHECK(names.text("new") ==
        "; 12 tensors are new: \"a\", \"b\", \"0\", \"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\" and 2 more");
}
