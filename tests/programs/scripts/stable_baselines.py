"""Stable-Baselines3: PPO on CartPole in two processes, logging with its own TensorBoard output."""
# needs: frameworks
# seconds: 120
# varies: time/

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import SubprocVecEnv


def make():
    return gymnasium.make("CartPole-v1")


if __name__ == "__main__":
    environments = SubprocVecEnv([make, make], start_method="fork")
    model = PPO("MlpPolicy", environments, n_steps=32, batch_size=32, tensorboard_log="runs", device="cpu", seed=0)
    model.learn(256, tb_log_name="ppo", log_interval=1)
    environments.close()
